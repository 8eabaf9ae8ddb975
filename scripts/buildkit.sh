#!/usr/bin/env bash
# Builds buildkitd and buildctl, peers of the bench that no distribution has, from
# their module into a directory, unless they are there.
#   scripts/buildkit.sh DIRECTORY VERSION
set -euo pipefail
dir=$1 version=$2
[ -x "$dir/buildkitd" ] && exit 0
echo "building buildkitd $version" >&2
mkdir -p "$dir"
module=$(mktemp -d)
trap 'rm -rf "$module"' EXIT
# Its module cannot be installed directly: it replaces others.
cat >"$module/go.mod" <<MOD
module buildkit
go 1.26
MOD
cd "$module"
export GOFLAGS=-mod=mod CGO_ENABLED=0
go get "github.com/moby/buildkit/cmd/buildkitd@$version" "github.com/moby/buildkit/cmd/buildctl@$version"
go build -o "$dir/" github.com/moby/buildkit/cmd/buildctl github.com/moby/buildkit/cmd/buildkitd
