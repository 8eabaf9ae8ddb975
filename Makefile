# Targets a person types. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := bash

GO          ?= go
PREFIX      ?= /usr/local
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS     := -s -w -X berth/internal/version.version=$(VERSION)
BUILD       := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'

# command=package pairs for scripts/deps.sh
DEMO_DEPS   := busybox=busybox-static pgrep=procps
TEST_DEPS   := $(DEMO_DEPS) gcc=gcc docker=docker.io podman=podman runc=runc skopeo=skopeo docker-registry=docker-registry docker-compose=docker-compose ip=iproute2 nft=nftables tmux=tmux curl=curl openssl=openssl ssh-add=openssh-client git=git xz=xz-utils qemu-riscv64-static=qemu-user-static
BENCH_DEPS  := $(DEMO_DEPS) buildah=buildah skopeo=skopeo docker-registry=docker-registry gcc=gcc dockerd=docker.io docker=docker.io podman=podman runc=runc crun=crun hyperfine=hyperfine perf=linux-perf
BUILDKIT_VERSION := v0.34.2

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build berth, berthd and berth-runtime into bin/
	@$(BUILD) -o bin/ ./cmd/...

.PHONY: demo
demo: ## build, run a container end to end in a scratch directory, clean up
	@scripts/deps.sh $(DEMO_DEPS)
	@$(MAKE) --no-print-directory build
	@scripts/demo.sh

.PHONY: test
test: ## every test: unit under the race detector, then end to end (needs root)
	@scripts/deps.sh $(TEST_DEPS)
	@$(MAKE) --no-print-directory build
	@scripts/test.sh

.PHONY: test-differential
test-differential: ## fifty Dockerfiles built by berth, docker's first builder and buildah; docker's API beside ours (needs root)
	@scripts/deps.sh $(DEMO_DEPS) dockerd=docker.io docker=docker.io buildah=buildah docker-registry=docker-registry
	@$(MAKE) --no-print-directory build
	@BERTH_DIFFERENTIAL=all $(GO) test -count=1 -timeout 20m -v -run 'TestBuildMakesWhatOthersMake|BesideDocker' ./test/

.PHONY: lint
lint: ## formatting, vet, staticcheck
	@unformatted=$$(gofmt -l cmd internal test bench); \
	 if [ -n "$$unformatted" ]; then echo "run gofmt -w on:" $$unformatted; exit 1; fi
	@$(GO) vet ./...
	@$(GO) run $(STATICCHECK) ./...

.PHONY: bench
bench: ## berth beside runc, crun, docker and podman, one table of medians and ratios (needs root)
	@scripts/deps.sh $(BENCH_DEPS)
	@scripts/buildkit.sh $(CURDIR)/.cache/bench $(BUILDKIT_VERSION)
	@$(MAKE) --no-print-directory build
	@PATH="$(CURDIR)/.cache/bench:$$PATH" $(GO) run ./bench $(BENCH_FLAGS)

.PHONY: chaos
chaos: ## kill the engine and the monitor at random for minutes (needs root; CHAOS=5m)
	@scripts/deps.sh $(TEST_DEPS)
	@$(MAKE) --no-print-directory build
	@BERTH_CHAOS=$(or $(CHAOS),5m) $(GO) test -count=1 -timeout 60m -v -run Chaos ./test/...

.PHONY: fuzz-api
fuzz-api: ## random requests to an engine with real containers for minutes (needs root; FUZZTIME=5m)
	@scripts/deps.sh $(TEST_DEPS)
	@$(MAKE) --no-print-directory build
	@BERTH_FUZZ_API=$(or $(FUZZTIME),5m) $(GO) test -count=1 -timeout 60m -v -run FuzzAPI ./test/...

.PHONY: docs
docs: ## write docs/api.md out of the code
	@BERTH_WRITE_DOCS=1 $(GO) test -count=1 -run TheDocumentOfTheAPI ./internal/api

.PHONY: fuzz
fuzz: ## every fuzz target for a while each (FUZZTIME=30s)
	@scripts/fuzz.sh $(or $(FUZZTIME),30s)

VM_DEPS     := busybox=busybox-static qemu-system-x86_64=qemu-system-x86 depmod=kmod mkfs.ext4=e2fsprogs mkfs.xfs=xfsprogs

.PHONY: test-vm
test-vm: ## the runtime's tests, limits on cgroup v2, quotas and a clock that jumps, in a small virtual machine
	@scripts/deps.sh $(VM_DEPS)
	@$(MAKE) --no-print-directory build
	@mkdir -p .cache/vm
	@CGO_ENABLED=0 $(GO) test -c -trimpath -o .cache/vm/runtime.test ./internal/runtime
	@CGO_ENABLED=0 $(GO) test -c -trimpath -o .cache/vm/quota.test ./internal/quota
	@test/vm/limits-host.sh .cache/vm/runtime.test .cache/vm/quota.test

.PHONY: test-powercut
test-powercut: ## cut the power of a virtual machine at work, boot again, check (CUTS=3)
	@scripts/deps.sh $(VM_DEPS)
	@$(MAKE) --no-print-directory build
	@mkdir -p .cache/vm
	@CGO_ENABLED=0 $(GO) test -c -trimpath -o .cache/vm/quota.test ./internal/quota
	@test/vm/powercut-host.sh .cache/vm/quota.test $(or $(CUTS),3)

.PHONY: install
install: build ## install the programs (PREFIX=/usr/local)
	@install -d $(DESTDIR)$(PREFIX)/bin
	@install -m 0755 bin/berth bin/berthd bin/berth-runtime $(DESTDIR)$(PREFIX)/bin/
	@echo "installed berth, berthd and berth-runtime in $(DESTDIR)$(PREFIX)/bin"

.PHONY: clean
clean: ## remove what the build made
	@rm -rf bin
