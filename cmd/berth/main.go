// Command berth runs and manages containers through an engine, which it starts
// when none runs.
package main

import (
	"os"

	"berth/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args)) }
