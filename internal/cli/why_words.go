package cli

import (
	"fmt"
	"strings"
	"time"

	"berth/internal/cli/format"
	"berth/internal/wire"
)

// signalMeanings is what usually lies behind a signal.
var signalMeanings = map[string]string{
	"SIGHUP": "its terminal went away, or somebody asked it to read its configuration again",
	"SIGINT": "somebody pressed Ctrl-C", "SIGQUIT": "somebody asked it to end and to leave a core dump",
	"SIGILL":  "it met an instruction that this processor does not have: it was built for a newer one, or is damaged",
	"SIGTRAP": "it stopped at a break point without a debugger",
	"SIGABRT": "it gave up by itself: a failed assertion, a corrupted heap, or an exception that nobody caught",
	"SIGBUS":  "it read a mapped file that became shorter, or /dev/shm is full (--shm-size makes it larger)",
	"SIGFPE":  "it divided by zero", "SIGKILL": "somebody outside killed it, and it could not refuse",
	"SIGSEGV": "it used memory that is not its own: a defect in the program or in a library of it",
	"SIGPIPE": "it wrote to a connection whose other end was closed", "SIGALRM": "a timer of its own ran out",
	"SIGTERM": "somebody asked it to end, from within the container or from the host",
	"SIGXCPU": "it used more processor time than its ulimit allows", "SIGXFSZ": "it wrote a larger file than its ulimit allows",
	"SIGSYS": "it made a system call that its seccomp profile forbids",
}

// codeMeanings is what programs usually mean by an exit code.
var codeMeanings = map[string]string{
	"1": "programs say so of any failure", "2": "often a wrong argument or a wrong use of a shell's own command",
	"125": "the command that started it failed itself", "126": "a shell says so of a file that is no program",
	"127": "a shell says so of a program that does not exist", "255": "programs say so of any failure, and ssh of a broken connection",
}

// configAdvice is what to do about something that a configuration names and that is not
// there.
var configAdvice = map[string]string{
	"user":   "name one of the image's /etc/passwd, or write a number: --user 1000",
	"group":  "name one of the image's /etc/group, or write a number",
	"device": "look at the host's /dev: is it plugged in, is its module loaded?", "working directory": "name a directory of the image: --workdir",
	"sysctl":  "the kernel has none of that name, or its module is not loaded",
	"network": "berth network ls shows those that there are; create it, or connect the container to another",
}

// explainCause words a cause: what happened, what is known of it, what to do.
func explainCause(w *wire.Why, c *wire.WhyCause, now time.Time) (title, text, advice string) {
	subject, other := format.Printable(c.Subject), format.Printable(c.Other)
	switch c.Kind {
	case wire.WhyNotFound, wire.WhyLoader, wire.WhyCRLF, wire.WhyPlatform, wire.WhyExecutable, wire.WhyPort, wire.WhyMount, wire.WhyConfig, wire.WhyPartner, wire.WhyStart:
		return explainStart(c, subject, other)
	case wire.WhyAsked:
		return explainAsked(w, c, now)
	case wire.WhyOOM, wire.WhyHostOOM, wire.WhyMemory:
		return explainMemory(w, c, subject)
	case wire.WhyPermission, wire.WhyDenied, wire.WhyReadOnly, wire.WhyDisk, wire.WhyProcesses, wire.WhyFiles, wire.WhyNetwork:
		return explainLimits(w, c, subject)
	case wire.WhyUnhealthy, wire.WhyLoop, wire.WhyThrottled, wire.WhyPaused, wire.WhyFine, wire.WhyNever, wire.WhyDead:
		return explainRunning(w, c)
	}
	name := quoted(format.Printable(w.Name))
	switch c.Kind {
	case wire.WhyFinished:
		return "Its program ended by itself, with success.", "A container lives as long as its first program.",
			"if it should go on, its program has to stay in the foreground"
	case wire.WhyNoShell:
		return subject + " had no input, so it ended at once.", "It reads commands from its input, and nothing was connected to that.",
			"run it with -it to type commands, or with -d and a program that goes on, as in 'sleep infinity'"
	case wire.WhyKilled:
		return "It was killed by SIGKILL, and not by this engine.",
			"The kernel reports no lack of memory in it. Somebody on the host used kill -9, or a process in the container did.",
			"look into the host's log around " + clock(w.Finished, now) + ", and for programs such as earlyoom"
	case wire.WhySignal:
		text := signalMeanings[subject]
		if text != "" {
			text = strings.ToUpper(text[:1]) + text[1:] + "."
		}
		if w.End != nil && !w.End.BySignal {
			text = fmt.Sprintf("Code %d is what a shell says when its command was ended by %s. %s", w.End.Code, subject, text)
		}
		return "It was ended by " + subject + ".", text, ""
	case wire.WhyLost:
		if subject == "boot" {
			return "The machine went down while it ran.", "Nobody saw how it ended; the code 255 is made up.", startAgain(w, name)
		}
		return "Nobody saw how it ended.", "Its engine and its monitor were both gone at that time; the code 255 is made up.", startAgain(w, name)
	case wire.WhyExit:
		text := ""
		if m := codeMeanings[subject]; m != "" {
			text = "Code " + subject + ": " + m + "."
		}
		if len(w.Log.Lines) > 0 {
			text += " Its own last words are below."
		}
		return "Its program ended by itself with code " + subject + ".", text, ""
	}
	return c.Kind + " " + subject, other, "" // of a newer engine
}

func startAgain(w *wire.Why, name string) string {
	if w.Restarts.Policy == "no" {
		return "berth start " + name + "; with --restart unless-stopped it comes back by itself"
	}
	return ""
}

func explainStart(c *wire.WhyCause, subject, other string) (title, text, advice string) {
	switch c.Kind {
	case wire.WhyNotFound:
		if subject == "" {
			return "A program that it calls does not exist.", "Code 127 is what a shell says of a program that it cannot find.", ""
		}
		if len(c.Candidates) == 0 {
			return "The program " + subject + " does not exist in the container.", "There is nothing of a similar name in its search path either.",
				"check the command, and whether the image is the right one"
		}
		return "The program " + subject + " does not exist in the container.", "", "did you mean " + format.Printable(strings.Join(c.Candidates, " or ")) + "?"
	case wire.WhyLoader:
		if other == "" {
			return "The shared library " + subject + " is missing.", "", "install it in the image, or link the program statically"
		}
		return subject + ", which " + other + " needs in order to start, is missing.", "",
			"install it in the image; a program for another C library (Alpine has musl) needs another base image"
	case wire.WhyCRLF:
		if subject == "" {
			subject = "A script"
		}
		return subject + " has Windows line ends.", "The kernel looks for an interpreter whose name ends in a carriage return.",
			"convert the script with dos2unix, and keep it so with '*.sh text eol=lf' in .gitattributes"
	case wire.WhyPlatform:
		if other != "" {
			other = ": " + other
		}
		return subject + " is built for another platform" + other + ".", "",
			"use an image for this machine (--platform), or install an emulator (the package qemu-user-static)"
	case wire.WhyExecutable:
		if subject == "" {
			return "A file that it calls cannot be executed.", "Code 126 is what a shell says of such a file.", "make it executable in the image: chmod +x"
		}
		advice = map[string]string{
			"is not executable": "make it executable in the image: chmod +x " + subject, "is no program": "a script needs a first line such as #!/bin/sh",
			"is a directory": "name a file in it",
		}[other]
		return subject + " " + other + ".", "", advice
	case wire.WhyPort:
		if other == "" {
			return "The port " + subject + " was taken.", "Nobody has it now.", "try again"
		}
		return "The port " + subject + " is taken: " + other + " has it.", "", "stop that, or publish another port"
	case wire.WhyMount:
		if other != "" {
			return "The volume " + subject + " cannot be mounted: " + other + ".", "", "berth volume inspect " + quoted(subject) + " shows its options, and where its files are"
		}
		return "What is to be mounted is not there: " + subject + ".", "", "create it on the host; -v, unlike --mount, creates missing directories"
	case wire.WhyConfig:
		return "Its " + other + " " + subject + " is not there.", "", configAdvice[other]
	case wire.WhyPartner:
		title = "It shares a namespace of the container " + subject + ", which "
		if other == "" {
			return title + "is gone.", "", "create it anew, with the one that is to be its partner"
		}
		return title + "does not run: it is " + other + ".", "", "berth start " + quoted(subject) + ", and then this one; berth why " + quoted(subject) + " tells what it has"
	}
	return "It could not be started.", format.Printable(c.Evidence), ""
}

func explainAsked(w *wire.Why, c *wire.WhyCause, now time.Time) (title, text, advice string) {
	e := w.End
	switch c.Subject {
	case "hand":
		title = "It was stopped by hand."
	case "policy":
		title = "The engine stopped it, since its health check failed and --on-unhealthy says so."
	case "shutdown":
		title = "The engine stopped it, because the engine itself was stopped."
	}
	if e == nil {
		return title, "", ""
	}
	when := "At " + clock(e.AskedAt, now)
	switch {
	case e.AskedSignal == "":
		text = when + " it was killed at once, without being asked."
	case e.Forced:
		text = fmt.Sprintf("%s it was sent %s, and killed %s later because it was still there.", when, e.AskedSignal, shortly(e.At.Sub(e.AskedAt)))
	default:
		text = fmt.Sprintf("%s it was sent %s, and ended within %s.", when, e.AskedSignal, shortly(e.At.Sub(e.AskedAt)))
	}
	if e.Note != "" {
		note := format.Printable(e.Note)
		text += " " + strings.ToUpper(note[:1]) + note[1:] + "."
	} else if e.Forced && e.AskedSignal != "" {
		advice = "a longer time-out (--stop-timeout) lets it finish; a shell as its first program may not pass the signal on"
	}
	return title, text, advice
}

func explainMemory(w *wire.Why, c *wire.WhyCause, subject string) (title, text, advice string) {
	m := &w.Memory
	name := quoted(format.Printable(w.Name))
	who := "A process of it"
	if subject != "" {
		who = "Its process " + subject
	}
	if m.Victim != nil && m.Victim.RSS > 0 {
		who += fmt.Sprintf(" (pid %d on the host), which held %s,", m.Victim.Pid, format.BinaryBytes(m.Victim.RSS))
	}
	more := ""
	if m.Limit > 0 {
		more = fmt.Sprintf("berth update --memory %s --memory-swap -1 %s gives it more", format.BinaryBytes(2 * m.Limit)[:len(format.BinaryBytes(2*m.Limit))-2], name)
	}
	switch c.Kind {
	case wire.WhyHostOOM:
		return "The machine ran out of memory, and the kernel killed it.", who + " was killed. The container itself was not at a limit of its own.",
			"give each container a limit (--memory), or the machine more memory"
	case wire.WhyOOM:
		text = who + " was killed"
		if m.Limit > 0 {
			text += fmt.Sprintf(" when the container met its limit of %s", format.BinaryBytes(m.Limit))
			if m.Peak > 0 {
				text += fmt.Sprintf(" (most in use: %s)", format.BinaryBytes(m.Peak))
			}
		}
		title = "It ran out of memory, and the kernel killed it."
		if c.Sure != wire.WhyCertain {
			title = "the kernel killed a process in it for lack of memory."
		}
		return title, text + ".", more
	}
	switch subject {
	case "heap":
		return "its program ran out of memory of its own.", "The kernel killed nothing: a limit that the program sets itself was met, or it was refused more.",
			"raise the program's own limit, such as -Xmx or --max-old-space-size"
	case "pressure":
		return "it is short of memory.", "Its processes spend a good part of their time waiting for memory to be freed.", more
	}
	return "it is close to its memory limit.", fmt.Sprintf("It uses %s of %s.", format.BinaryBytes(m.Now), format.BinaryBytes(m.Limit)), more
}

func explainLimits(w *wire.Why, c *wire.WhyCause, subject string) (title, text, advice string) {
	user := "root"
	if w.User != "" {
		user = format.Printable(w.User)
	}
	switch c.Kind {
	case wire.WhyPermission:
		switch {
		case subject == "port":
			return "it may not use a port below 1024.", "It runs as " + user + ".", "let it listen on a higher port, or add --cap-add NET_BIND_SERVICE"
		case subject == "":
			return "it was not allowed to use a file.", "It runs as " + user + ".", "compare the owners of its files with its user; berth exec and ls -ln show them"
		}
		return "it was not allowed to use " + subject + ".", "It runs as " + user + ".", "compare the owner of that file with its user, above all on mounts"
	case wire.WhyDenied:
		switch subject {
		case "seccomp":
			return "it made a system call that its seccomp profile forbids.", "", "try --security-opt seccomp=unconfined to see whether that is it"
		case "apparmor", "selinux":
			return "the host's " + subject + " profile refused something.", "", "adapt the profile; --security-opt chooses another one"
		case "capability":
			name := format.Printable(c.Other)
			return "the kernel refused something that needs the capability " + name + ", which it has not.",
				"This is read out of its words alone; nobody logged the refusal.", "--cap-add " + name + ", if it is to be able to do that"
		case "privileged":
			return "the kernel refused something, although it is privileged.", "Its file systems may be mounted read-only or without rights.", ""
		}
		return "the kernel refused something that needs a capability, or that its seccomp profile forbids.",
			"This is read out of its words alone; nobody logged the refusal.",
			"--cap-add with the capability that it needs; --security-opt seccomp=unconfined tells whether seccomp is in the way"
	case wire.WhyReadOnly:
		what := "something"
		if subject != "" {
			what = subject
		}
		return "it wanted to write to " + what + ", which it may only read.", "", "mount a volume there, or a --tmpfs"
	case wire.WhyDisk:
		return "there was no room left on a disk.", "", "berth system df -v shows what takes how much"
	case wire.WhyProcesses:
		if p := w.Pids; p != nil && p.Limit > 0 {
			text = fmt.Sprintf("It has %d processes and threads, and may have %d.", p.Now, p.Limit)
		}
		return "it could not start more processes or threads.", text, "raise --pids-limit or --ulimit nproc"
	case wire.WhyFiles:
		return "it has too many open files.", "", "raise --ulimit nofile, or look for a leak"
	}
	return "something that it needs could not be reached over the network.", "",
		"does what it depends on run, and is it on the same network? Names are known on networks made with 'berth network create' alone"
}

func explainRunning(w *wire.Why, c *wire.WhyCause) (title, text, advice string) {
	name := quoted(format.Printable(w.Name))
	switch c.Kind {
	case wire.WhyUnhealthy:
		streak := 0
		if w.Health != nil {
			streak = w.Health.Streak
		}
		title = "Its health check fails."
		if c.Subject != "unhealthy" {
			title = "Its health check has failed, and it is not counted as unhealthy yet."
		}
		if w.Health != nil {
			text = fmt.Sprintf("%s in a row of: %s", format.Plural(streak, "failure"), format.Truncate(format.Printable(strings.Join(w.Health.Test, " ")), 200))
			if w.Health.Action == "" || w.Health.Action == "none" {
				advice = "created with --on-unhealthy restart, the engine starts it anew when that happens"
			}
		}
		return title, text, advice
	case wire.WhyLoop:
		return fmt.Sprintf("Its restart policy has started it %s.", format.Plural(w.Restarts.Count, "time")), "It ends soon after each start.",
			"berth stop " + name + " ends that"
	case wire.WhyThrottled:
		return "it often waits because of its processor limit.", "", "raise --cpus: berth update --cpus 2 " + name
	case wire.WhyPaused:
		return "It is paused.", "Its processes are frozen and answer nobody.", "berth unpause " + name
	case wire.WhyNever:
		return "Nobody has started it yet.", "", "berth start " + name
	case wire.WhyDead:
		return "It could not be removed.", "", "berth rm -f " + name
	}
	return "It runs, and nothing speaks against it.", "", ""
}
