# Whole machines under QEMU. Included by the Makefile.
VM = .tools/vm
.PHONY: test-vm vm-files

# A run has its own copy of our disk, so that the next build does not change it under a machine. The trap is for a run
# that is cut short: QEMU dies with its parent, but files in the temporary directory would stay.
test-vm: vm-files ## tell the stories of test/vagrant on machines under QEMU; SHORT=1 takes 8 minutes, STORY=regexp chooses
	@image=$$(test/vagrant/build) && tmp=$$(mktemp -d /tmp/fl-vm-XXXXXX) && trap 'rm -rf "$$tmp"' EXIT && trap 'exit 130' INT TERM && \
		cp --reflink=auto $(VM)/product.img $$tmp/ && cd test/vagrant && rm -rf $(CURDIR)/$(VM)/out && \
		TMPDIR=$$tmp VM_IMAGE=$$image VM_PRODUCT=$$tmp/product.img VM_OUT=$(CURDIR)/$(VM)/out \
		$(CURDIR)/$(VM)/stories -test.v -test.run 'TestStories/$(STORY)' $(if $(SHORT),-test.short -test.timeout 10m,-test.timeout 40m)

vm-files: ## build what those machines get from us, in .tools/vm
	$(ROOT)
	@deploy/packages/install test/vagrant/packages
	@$(MAKE) --no-print-directory build >/dev/null
	@GO="$(GO)" test/vagrant/product $(VM)
	@CGO_ENABLED=0 $(GO) test -c -tags=vm -o $(VM)/stories ./test/vagrant
