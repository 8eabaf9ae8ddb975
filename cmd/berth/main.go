// Command berth runs and manages containers through an engine, which it starts
// when none runs.
package main

import (
	"os"

	"berth/internal/cli"
	"berth/internal/sysmon"
)

func main() {
	sysmon.Calm()
	os.Exit(cli.Main(os.Args))
}
