# Everything one does with this repository. `make help` lists it.

export PATH := $(PATH):/usr/local/go/bin
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unversioned)
PREFIX  ?= /usr/local
DESTDIR ?=

LINT_VERSION = v2.15.0
LINT         = .tools/golangci-lint-$(LINT_VERSION)
BUILD        = CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
ROOT         = @[ "$$(id -u)" = 0 ] || { echo "make $@: needs root (namespaces, cgroups, links); run it as root" >&2; exit 1; }

.DEFAULT_GOAL := help
.PHONY: help build run install packages demo demo-clean test test-race vet lint fmt-check tidy-check clean soak-orphans

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/fairlead and bin/fairlead-cni: static, version stamped
	@$(BUILD) -o bin/ ./cmd/...
	@ls bin/fairlead bin/fairlead-cni

run: ## run the agent on this host in the foreground, with the embedded defaults
	$(ROOT)
	@$(MAKE) --no-print-directory build >/dev/null
	bin/fairlead agent

install: build ## install binaries, systemd unit, CNI conflist and example config (PREFIX, DESTDIR)
	install -D -m 755 bin/fairlead $(DESTDIR)$(PREFIX)/bin/fairlead
	install -D -m 755 bin/fairlead-cni $(DESTDIR)/opt/cni/bin/fairlead-cni
	@to=$(DESTDIR)/opt/cni/bin/loopback; if [ -e "$$to" ]; then echo "kept $$to, which was there"; else echo "ln -s fairlead-cni $$to"; ln -s fairlead-cni "$$to"; fi
	install -d $(DESTDIR)/etc/systemd/system $(DESTDIR)/etc/cni/net.d $(DESTDIR)/etc/fairlead
	sed 's|@BINDIR@|$(PREFIX)/bin|' deploy/fairlead.service >$(DESTDIR)/etc/systemd/system/fairlead.service
	install -m 644 deploy/fairlead.yaml $(DESTDIR)/etc/fairlead/fairlead.yaml.example
	@for f in etc/fairlead/fairlead.yaml:deploy/fairlead.yaml etc/cni/net.d/10-fairlead.conflist:deploy/10-fairlead.conflist; do \
		to=$(DESTDIR)/$${f%%:*}; \
		if [ -e "$$to" ]; then echo "kept $$to, which was there"; else echo "install -m 644 $${f#*:} $$to"; install -m 644 "$${f#*:}" "$$to"; fi; \
	done

packages: ## install the Debian packages that the demo and the tests need, by name
	@deploy/packages/install deploy/packages/demo deploy/packages/test

demo: ## run the main job on two simulated hosts; KEEP=1 leaves it running to look around
	$(ROOT)
	@deploy/packages/install deploy/packages/demo
	@$(MAKE) --no-print-directory build >/dev/null
	@$(GO) build -o .tools/demo ./test/e2e/demo
	@GO=$(GO) KEEP=$(KEEP) .tools/demo

demo-clean: ## end a demo that KEEP=1 left running
	$(ROOT)
	@$(GO) build -o .tools/demo ./test/e2e/demo
	@.tools/demo -clean

test: ## run every test; the kernel and host tests when root
	@if [ "$$(id -u)" = 0 ]; then deploy/packages/install deploy/packages/demo deploy/packages/test; fi
	@$(GO) build -o .tools/report ./test/report
	@if [ "$$(id -u)" = 0 ]; then \
		$(GO) test -json -tags=kernel -p 1 -timeout 15m ./... | .tools/report; \
	else \
		$(GO) test -json ./... | .tools/report -skipped "kernel and host tests: they need root"; \
	fi

test-race: ## run the pure tests under the race detector (needs gcc)
	CGO_ENABLED=1 $(GO) test -race ./...

vet: ## go vet, with and without the kernel tests
	$(GO) vet ./...
	$(GO) vet -tags=kernel ./...

lint: $(LINT) ## golangci-lint, which also enforces the floors
	$(LINT) run --allow-parallel-runners ./...
	$(LINT) run --allow-parallel-runners --build-tags=kernel ./...

$(LINT):
	GOBIN=$(CURDIR)/.tools $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	mv .tools/golangci-lint $@

fmt-check: ## fail when a file is not as gofmt has it
	@files=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); [ -z "$$files" ] || { echo "gofmt -w $$files"; exit 1; }

tidy-check: ## fail when go.mod or go.sum is not tidy
	$(GO) mod tidy -diff

clean: ## remove what was built
	rm -rf bin .tools

soak-orphans: ## the reaper against a random host and a real one, 0 wrong deletions; SHORT=1 is a minute
	$(ROOT)
	@deploy/packages/install deploy/packages/demo
	@SHORT=$(SHORT) $(GO) run ./test/soak/orphans

-include test/bench/bench.mk

-include test/vagrant/vm.mk
