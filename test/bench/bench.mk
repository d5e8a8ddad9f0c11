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

.PHONY: bench-cni
bench-cni: build ## ADD and DEL beside the reference CNI plugins; SHORT=1 takes half a minute
	$(ROOT)
	@deploy/packages/install deploy/packages/demo
	@GOBIN=$(CURDIR)/.tools/cni-plugins-$(CNI_PLUGINS) $(GO) install github.com/containernetworking/plugins/plugins/main/bridge@$(CNI_PLUGINS) github.com/containernetworking/plugins/plugins/ipam/host-local@$(CNI_PLUGINS)
	@cd test/bench && $(GO) build -o $(CURDIR)/.tools/bench-cni ./cni
	@SHORT=$(SHORT) .tools/bench-cni -bin bin -reference .tools/cni-plugins-$(CNI_PLUGINS) -reference-version $(CNI_PLUGINS)

.PHONY: bench-logs
bench-logs: ## what delivering logs costs beside rsyslog imfile; SHORT=1 takes a minute
	$(ROOT)
	@deploy/packages/install deploy/packages/test
	@cd test/bench && $(GO) build -o $(CURDIR)/.tools/bench-logs ./logs
	@SHORT=$(SHORT) .tools/bench-logs

.PHONY: soak-logs
soak-logs: ## log delivery under rotation and kill -9; SHORT=1 takes half a minute
	@$(GO) build -o .tools/soak-logs ./test/soak/logs
	@SHORT=$(SHORT) .tools/soak-logs
