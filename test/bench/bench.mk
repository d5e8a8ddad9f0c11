# Benchmarks beside a peer, in a module of their own: test/bench. Included by the Makefile.
.PHONY: bench-metrics bench-metrics-test

bench-metrics: ## what a scrape costs beside cAdvisor's library, on 500 containers; SHORT=1 takes 40 of them, N=n any number
	$(ROOT)
	@deploy/packages/install deploy/packages/demo
	@cd test/bench && $(GO) build -o $(CURDIR)/.tools/bench-metrics ./metrics
	@SHORT=$(SHORT) .tools/bench-metrics -n $(or $(N),0)

bench-metrics-test: ## compare our page with cAdvisor's library on live containers: names, labels, values
	$(ROOT)
	@cd test/bench && $(GO) test -tags=kernel ./metrics

CNI_PLUGINS = v1.9.1
REFERENCE = main/bridge ipam/host-local meta/portmap meta/tuning meta/bandwidth meta/firewall

.PHONY: reference-plugins
reference-plugins:
	@GOBIN=$(CURDIR)/.tools/cni-plugins-$(CNI_PLUGINS) $(GO) install $(foreach p,$(REFERENCE),github.com/containernetworking/plugins/plugins/$(p)@$(CNI_PLUGINS))

.PHONY: bench-cni
bench-cni: build reference-plugins ## ADD and DEL beside the reference CNI plugins; SHORT=1 takes half a minute
	$(ROOT)
	@deploy/packages/install deploy/packages/demo
	@cd test/bench && $(GO) build -o $(CURDIR)/.tools/bench-cni ./cni
	@SHORT=$(SHORT) .tools/bench-cni -bin bin -reference .tools/cni-plugins-$(CNI_PLUGINS) -reference-version $(CNI_PLUGINS)

# The OpenTelemetry Collector with the few parts that we meet. It is kept; building it anew takes minutes.
.tools/collector: $(wildcard test/peers/go.* test/peers/collector/*.go)
	@cd test/peers && $(GO) build -ldflags="-s -w" -o $(CURDIR)/.tools/collector ./collector

SYSLOG_NG = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/fairlead/syslog-ng

.PHONY: test-peers
test-peers: .tools/collector ## the log sinks against a real OpenTelemetry Collector (built first: minutes, once), syslog-ng and rsyslog
	$(ROOT)
	@deploy/packages/install deploy/packages/test
	@test/peers/syslog-ng $(SYSLOG_NG)
	@$(GO) build -o .tools/report ./test/report
	@CI=true FAIRLEAD_COLLECTOR=$(CURDIR)/.tools/collector FAIRLEAD_SYSLOG_NG=$(SYSLOG_NG) \
		$(GO) test -json -tags=kernel -count=1 -run 'TestAReal(Collector|SyslogNG|Rsyslog)' ./logship | .tools/report

.PHONY: bench-logs
bench-logs: .tools/collector ## what delivering logs costs beside rsyslog imfile and OpenTelemetry filelog; SHORT=1 takes a minute
	$(ROOT)
	@deploy/packages/install deploy/packages/test
	@cd test/bench && $(GO) build -o $(CURDIR)/.tools/bench-logs ./logs
	@SHORT=$(SHORT) .tools/bench-logs

.PHONY: soak-logs
soak-logs: ## log delivery under rotation and kill -9; SHORT=1 takes half a minute
	@$(GO) build -o .tools/soak-logs ./test/soak/logs
	@SHORT=$(SHORT) .tools/soak-logs
	@[ -n "$(SHORT)" ] || FAIRLEAD_SOAK=1 $(GO) test -tags=kernel -count=1 -timeout 20m -v ./logship \
		-run 'Vanish|WhileASink|OneGeneration|Overflowed|StateDirectoryIsFull|RealContainer'

.PHONY: soak-cni
soak-cni: ## kill -9 at every place of ADD and DEL, nothing may be left; SHORT=1 takes a minute
	$(ROOT)
	@deploy/packages/install deploy/packages/demo deploy/packages/test
	@$(GO) build -o .tools/soak-cni ./test/soak/cni
	@SHORT=$(SHORT) .tools/soak-cni

.PHONY: suite-cni
suite-cni: build reference-plugins ## the CNI suite against ours and the reference plugins, as the table of docs/networking.md; six minutes
	$(ROOT)
	@deploy/packages/install deploy/packages/demo deploy/packages/test
	@$(GO) run ./test/e2e/cni/table -bin bin -reference .tools/cni-plugins-$(CNI_PLUGINS)

.PHONY: crictl
crictl: ## .tools/crictl, which the tests with containerd's CRI ask too when it is there
	@cd test/e2e/cni/crictl && $(GO) build -o $(CURDIR)/.tools/crictl sigs.k8s.io/cri-tools/cmd/crictl

.PHONY: nerdctl
nerdctl: reference-plugins ## .tools/nerdctl and the plugins that it wants to see, for its test
	@cd test/e2e/cni/nerdctl && CGO_ENABLED=0 $(GO) build -o $(CURDIR)/.tools/nerdctl github.com/containerd/nerdctl/v2/cmd/nerdctl
