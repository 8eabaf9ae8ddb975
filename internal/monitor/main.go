package monitor

import (
	"fmt"
	"os"
	"strconv"
	"syscall"

	"berth/internal/monitor/keeper"
	"berth/internal/monitor/worker"
)

const usage = `usage: berth-runtime monitor --run DIR [--ready-fd N]

Runs the monitor of a run directory: the parent of its containers. The engine
starts it by itself. It ends when nothing runs and no engine is connected.
`

// Main is the "monitor" subcommand of berth-runtime. args are those behind the
// subcommand's name; it returns the exit code. The processes of the monitor
// start each other with arguments of their own.
func Main(args []string) int {
	var runDir, mode string
	var ready *os.File
	for i := 0; i < len(args); i++ {
		value := func() string {
			if i++; i < len(args) {
				return args[i]
			}
			return ""
		}
		switch args[i] {
		case "--run":
			runDir = value()
		case "--ready-fd":
			fd, err := strconv.Atoi(value())
			if err != nil || fd < 3 {
				fmt.Fprint(os.Stderr, usage)
				return 2
			}
			syscall.CloseOnExec(fd)
			ready = os.NewFile(uintptr(fd), "ready")
		case keeper.WorkerFlag, keeper.TakeoverFlag:
			mode = args[i]
		case "-h", "--help":
			fmt.Print(usage)
			return 0
		default:
			fmt.Fprintf(os.Stderr, "berth-runtime monitor: unknown argument %q\n%s", args[i], usage)
			return 2
		}
	}
	if runDir == "" {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	if err := run(mode, runDir, ready); err != nil {
		report(ready, err)
		return 1
	}
	return 0
}

func run(mode, runDir string, ready *os.File) error {
	switch mode {
	case keeper.WorkerFlag:
		return worker.Run(runDir)
	case keeper.TakeoverFlag:
		return keeper.TakeOver(runDir)
	}
	return keeper.Start(runDir, ready)
}

// report says what went wrong to whoever waits for the monitor to be ready, and
// else on standard error.
func report(ready *os.File, err error) {
	if ready != nil {
		if _, failed := fmt.Fprintln(ready, err); failed == nil {
			return
		}
	}
	fmt.Fprintln(os.Stderr, "berth-runtime monitor:", err)
}
