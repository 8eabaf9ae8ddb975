#!/usr/bin/env bash
# Runs every test: the rooms' own under the race detector, then the end-to-end
# scenarios against the programs in bin/. Says what is skipped and why.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" -ne 0 ]; then
	echo "not root: every test that makes namespaces, mounts or cgroups is skipped (each says so under -v)"
fi

# The initial process of a container is a bare clone of the runtime, which the
# race detector's own threads cannot follow: the runtime and what starts real
# containers in its own process run without it.
plain=(./internal/runtime/... ./internal/monitor/... ./cmd/berth-runtime/...)
mapfile -t raced < <(go list ./internal/... ./cmd/... | grep -v -e '/internal/runtime' -e '/internal/monitor' -e '/cmd/berth-runtime')

go test -race -timeout 15m "${raced[@]}"
CGO_ENABLED=0 go test -timeout 15m "${plain[@]}"
CGO_ENABLED=0 go test -count=1 -timeout 20m ./test/... ./bench/...
