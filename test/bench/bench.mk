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

.PHONY: short-lived
short-lived: ## 200 containers that live for 100 ms: the last samples of 99 in 100 are right, the others counted
	$(ROOT)
	@deploy/packages/install deploy/packages/demo
	@FAIRLEAD_SHORT_LIVED=200 $(GO) test -tags=kernel -count=1 -v -run 'TestContainersThatLiveATenth' ./metrics

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

# flanneld's VXLAN backend with etcd as its store. Without it the bench measures the rest, and says so.
.tools/flannel: $(wildcard test/bench/overlay/flannel/*)
	@cd test/bench/overlay/flannel && CGO_ENABLED=0 $(GO) build -ldflags="-s -w" -o $(CURDIR)/.tools/flannel .

.PHONY: bench-overlay
bench-overlay: build reference-plugins ## packets between hosts beside flannel, and a host with 5,000 peers; SHORT=1 takes a minute, ONLY=paths or peers the half
	$(ROOT)
	@deploy/packages/install deploy/packages/demo deploy/packages/bench
	@-$(MAKE) --no-print-directory .tools/flannel
	@cd test/bench && $(GO) build -o $(CURDIR)/.tools/bench-overlay ./overlay
	@SHORT=$(SHORT) .tools/bench-overlay -bin bin -reference .tools/cni-plugins-$(CNI_PLUGINS) -reference-version $(CNI_PLUGINS) -only "$(ONLY)"

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
soak-logs: ## log delivery at the lowest weight, under kill -9, outages and vanishing containers; 8 minutes, SHORT=1 takes one
	$(ROOT)
	@deploy/packages/install deploy/packages/demo deploy/packages/test
	@$(GO) build -o .tools/soak-logs ./test/soak/logs
	@[ -n "$(SHORT)" ] || $(GO) test -c -tags=kernel -o .tools/soak-logs-cases ./logship
	@SHORT=$(SHORT) .tools/soak-logs $(CURDIR)/.tools/soak-logs-cases

.PHONY: soak-cni
soak-cni: ## kill -9 at every place of ADD and DEL, nothing may be left; SHORT=1 takes a minute
	$(ROOT)
	@deploy/packages/install deploy/packages/demo deploy/packages/test
	@$(GO) build -o .tools/soak-cni ./test/soak/cni
	@SHORT=$(SHORT) .tools/soak-cni

.PHONY: soak-overlay
soak-overlay: build ## leases and hosts with etcd at random, no block with two owners, nothing stale; 17 minutes, SHORT=1 takes one
	$(ROOT)
	@deploy/packages/install deploy/packages/demo deploy/packages/test
	@$(GO) test -c -o .tools/soak-overlay-model ./overlay/store
	@$(GO) build -o .tools/soak-overlay ./test/soak/overlay
	@SHORT=$(SHORT) .tools/soak-overlay -bin $(CURDIR)/bin -model .tools/soak-overlay-model

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
