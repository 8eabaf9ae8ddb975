package why

import (
	"context"
	"regexp"
	"strings"
	"sync"

	"berth/internal/container"
	"berth/internal/wire"
)

// startPattern recognises one reason of the runtime, or of the engine, for which a
// container does not start.
type startPattern struct {
	kind  string
	re    *regexp.Regexp // the first group is the subject, the second one what else there is
	other string         // the same where the words do not have it
}

// startPatterns are the sentences with which starts fail, the most telling first.
// The tests start containers that fail, so that the two do not drift apart.
var startPatterns = sync.OnceValue(func() []startPattern {
	var list []startPattern
	for _, p := range [][3]string{
		{wire.WhyCRLF, `(\S+) has Windows line ends \(CRLF\), so its interpreter is "([^"]*)"`, ""},
		{wire.WhyLoader, `the interpreter (\S+) of the script (\S+) is missing`, ""},
		{wire.WhyLoader, `the loader (\S+) of (\S+) is missing`, ""},
		{wire.WhyPlatform, `exec format error: (\S+) is built for (\S+) and`, ""},
		{wire.WhyPlatform, `(\S+) is a (Windows) program`, ""},
		{wire.WhyExecutable, `(\S+) (is a directory)`, ""},
		{wire.WhyExecutable, `(\S+) (is not a regular file)`, ""},
		{wire.WhyExecutable, `(\S+) (is not executable)`, ""},
		{wire.WhyExecutable, `(\S+) (is empty)`, ""},
		{wire.WhyExecutable, `(\S+) (is no program)`, ""},
		{wire.WhyExecutable, `(\S+) (names no interpreter)`, ""},
		{wire.WhyExecutable, `(\S+) (is a damaged executable)`, ""},
		{wire.WhyNotFound, `exec "([^"]*)": executable file not found`, ""},
		{wire.WhyNotFound, `exec "([^"]*)": no such file or directory`, ""},
		{wire.WhyPort, `(\S+): port is already allocated`, ""},
		{wire.WhyMount, `bind source path does not exist: (\S+)`, ""},
		{wire.WhyMount, `the files of volume (\S+) are gone`, ""},
		{wire.WhyMount, `/volumes/([^/]+)/_data: (cannot access path .*)`, ""},
		{wire.WhyMount, `error while mounting volume '\S*/([^/]+)/_data': (?:failed to mount local volume: )?(.*)`, ""},
		{wire.WhyMount, `(?i)mount[^:]*?(/\S+):.*(no such file or directory|not a directory)`, ""},
		{wire.WhyDisk, `no space left on (device)`, ""},
		{wire.WhyPermission, `exec "([^"]*)": .*permission denied`, ""},
		{wire.WhyPartner, `cannot join \w+ namespace of a non running container: (\w+)`, ""},
		{wire.WhyPartner, `No such container: (\w+)`, ""},
		{wire.WhyConfig, `(?i)unable to find user ([^:]+):`, "user"},
		{wire.WhyConfig, `(?i)unable to find group ([^:]+):`, "group"},
		{wire.WhyConfig, `adding custom device "([^"]*)"`, "device"},
		{wire.WhyConfig, `process\.cwd \(([^)]*)\)`, "working directory"},
		{wire.WhyConfig, `linux\.sysctl\[([^\]]*)\]: .*no such file`, "sysctl"},
		{wire.WhyConfig, `network (\S+) not found`, "network"},
	} {
		list = append(list, startPattern{p[0], regexp.MustCompile(p[1]), p[2]})
	}
	return list
})

// startCauses explains a start that failed.
func (k *Evidence) startCauses(text string) []wire.WhyCause {
	text = strings.TrimPrefix(text, "create container "+k.Record.ID+": ")
	for _, p := range startPatterns() {
		m := p.re.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		c := wire.WhyCause{Kind: p.kind, Sure: wire.WhyCertain, Evidence: text, Subject: m[1], Other: p.other}
		if len(m) > 2 {
			c.Other = m[2]
		}
		switch p.kind {
		case wire.WhyNotFound:
			c.Candidates = k.candidates(c.Subject)
		case wire.WhyPartner:
			if other, err := k.Others.Find(c.Subject); err == nil {
				c.Subject, c.Other = other.Record().Name, string(other.State().Status)
			} else {
				c.Subject = c.Subject[:min(len(c.Subject), 12)]
			}
		case wire.WhyPort:
			_, port, _ := strings.Cut(text, c.Subject+":")
			c.Other = k.portHolder(c.Subject, port)
		}
		return []wire.WhyCause{c}
	}
	return []wire.WhyCause{{Kind: wire.WhyStart, Sure: wire.WhyCertain, Evidence: text}}
}

// wordPattern recognises words that programs end with.
type wordPattern struct {
	kind, subject string
	sure          string
	re            *regexp.Regexp // the first group, if any, is the subject
}

// wordPatterns are what programs say before they give up, by what it points to.
var wordPatterns = sync.OnceValue(func() []wordPattern {
	var list []wordPattern
	for _, p := range []struct{ kind, subject, sure, re string }{
		{wire.WhyCRLF, "", wire.WhyLikely, `(?:env|sh|bash)[^\n]*?['‘"]?([\w./-]+)(?:\r|\\r|\^M)['’"]?: (?:No such file|not found|command not found)`},
		{wire.WhyCRLF, "", wire.WhyLikely, `\$?'\\r': command not found`},
		{wire.WhyNotFound, "", wire.WhyLikely, `^(?:[\w./-]+: )+(?:line )?(?:\d+: )?(?:exec: )?"?([^\s:"]+)"?: (?:command )?not found`},
		{wire.WhyNotFound, "", wire.WhyLikely, `env: (?:can't execute )?['‘"]?([^\s'’":]+)['’"]?: No such file or directory`},
		{wire.WhyNotFound, "", wire.WhyGuess, `exec: "?([^\s:"]+)"?: (?:executable file not found|No such file or directory)`},
		{wire.WhyPlatform, "", wire.WhyLikely, `([^\s:"]+): (?i:cannot execute binary file|exec format error)`},
		{wire.WhyLoader, "", wire.WhyLikely, `error while loading shared libraries: ([^\s:]+)`},
		{wire.WhyLoader, "", wire.WhyLikely, `Error loading shared library ([^\s:]+)`},
		{wire.WhyPort, "", wire.WhyLikely, `(?i)address (?:already )?in use[^\d\n]*((?:[\d.:\[\]]*:)?\d{2,5})?`},
		{wire.WhyPermission, "port", wire.WhyGuess, `(?i)bind[^\n]*(?:permission denied|EACCES)|listen EACCES`},
		{wire.WhyReadOnly, "", wire.WhyLikely, `(?i)([^\s:'"]*/[^\s:'"]*)?['"]?: read-only file system|EROFS`},
		{wire.WhyDisk, "", wire.WhyLikely, `(?i)no space left on device|ENOSPC|disk quota exceeded`},
		{wire.WhyFiles, "", wire.WhyLikely, `(?i)too many open files|EMFILE`},
		{wire.WhyProcesses, "", wire.WhyLikely, `(?i)can(?:'t|not) (?:fork|create (?:new )?(?:native )?thread)|(?:fork|pthread_create)[^\n]*resource temporarily unavailable|unable to create (?:new )?native thread`},
		{wire.WhyMemory, "heap", wire.WhyLikely, `(?i)heap out of memory|java\.lang\.OutOfMemoryError|MemoryError|cannot allocate memory|bad_alloc|runtime: out of memory|ENOMEM`},
		{wire.WhyDenied, "", wire.WhyGuess, `(?i)operation not permitted|EPERM\b|are you root\?`},
		{wire.WhyPermission, "", wire.WhyGuess, `(?i)([^\s:'"]*/[^\s:'"]*)?['"]?: permission denied|EACCES|permission denied`},
		{wire.WhyNetwork, "", wire.WhyGuess, `(?i)connection refused|ECONNREFUSED|could not (?:resolve|translate) host|name or service not known|temporary failure in name resolution|no such host|ENOTFOUND|EAI_AGAIN|bad address '|no route to host|connection timed out|ETIMEDOUT`},
	} {
		list = append(list, wordPattern{p.kind, p.subject, p.sure, regexp.MustCompile(p.re)})
	}
	return list
})

// wordedCauses reads the last lines that a program wrote, the newest first, and
// returns at most two kinds of causes that its words point to.
func wordedCauses(lines []string) (list []wire.WhyCause) {
	for i := len(lines) - 1; i >= 0 && len(list) < 2; i-- {
		line := strings.TrimRight(lines[i], " \n")
		for _, p := range wordPatterns() {
			m := p.re.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			c := wire.WhyCause{Kind: p.kind, Sure: p.sure, Subject: p.subject, Evidence: strings.TrimSpace(line)}
			if len(m) > 1 {
				c.Subject = m[1]
			}
			if len(list) == 0 || list[0].Kind != c.Kind {
				list = append(list, c)
			}
			break
		}
	}
	return list
}

// wordCauses is wordedCauses with what can be looked up about them, and what exit
// codes alone say.
func (k *Evidence) wordCauses(w *wire.Why, end container.Ending) []wire.WhyCause {
	list := wordedCauses(w.Log.Lines)
	for i := range list {
		switch c := &list[i]; c.Kind {
		case wire.WhyNotFound:
			if end.Code != 127 && c.Sure == wire.WhyLikely {
				c.Sure = wire.WhyGuess
			}
			c.Candidates = k.candidates(c.Subject)
		case wire.WhyDenied:
			if k.Record.HostConfig.Privileged {
				c.Subject = "privileged"
			} else if name := k.lacksCapability(c.Evidence); name != "" {
				c.Subject, c.Other = "capability", name
			}
		}
	}
	if len(list) == 0 {
		switch end.Code {
		case 126:
			list = append(list, wire.WhyCause{Kind: wire.WhyExecutable, Sure: wire.WhyGuess})
		case 127:
			list = append(list, wire.WhyCause{Kind: wire.WhyNotFound, Sure: wire.WhyGuess})
		}
	}
	return list
}

// portHolder says who has a port that a container wants: another container, by
// name, or a program of the machine.
func (k *Evidence) portHolder(port, text string) string {
	if _, id, ok := strings.Cut(text, "allocated by container "); ok {
		id, _, _ = strings.Cut(id, " ")
		if c, err := k.Others.Find(strings.TrimRight(id, ".:,)")); err == nil {
			return "container " + c.Record().Name
		}
	}
	return listenerOn(context.Background(), port)
}
