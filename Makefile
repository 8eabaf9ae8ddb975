export CGO_ENABLED = 0
export GOFLAGS = -trimpath
LDFLAGS = -s -w

.PHONY: build
build:
	go build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...
