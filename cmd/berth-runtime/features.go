package main

import (
	"flag"

	"berth/internal/runtime"
)

func setupFeatures(*global, *flag.FlagSet) func([]string) (int, error) {
	return func([]string) (int, error) { return 0, printJSON(runtime.Features()) }
}
