#!/usr/bin/env bash
# Runs every fuzz target of the project for the given time, one after another.
set -euo pipefail
cd "$(dirname "$0")/.."
each=${1:-30s}
grep -rl --include='*_test.go' '^func Fuzz' internal cmd | while read -r file; do
	dir=./$(dirname "$file")
	sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$file" | while read -r target; do
		echo "== $dir $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$each" "$dir"
	done
done
