# Whole machines under QEMU. Included by the Makefile.
VM = .tools/vm
.PHONY: test-vm vm-files

test-vm: vm-files ## tell the stories of test/vagrant on machines under QEMU; SHORT=1 takes 8 minutes, STORY=regexp chooses, of the story tests PACKAGES=regexp
	@VM_BOUND=$(if $(SHORT),8m,$(if $(VM_BY),2h,40m)) exec test/vagrant/tell $(VM) -test.run 'TestStories/$(STORY)' $(if $(SHORT),-test.short)

vm-files: ## build what those machines get from us, in .tools/vm
	$(ROOT)
	@deploy/packages/install test/vagrant/packages
	@$(MAKE) --no-print-directory build >/dev/null
	@GO="$(GO)" test/vagrant/product $(VM)
	@CGO_ENABLED=0 $(GO) test -c -tags=vm -o $(VM)/stories ./test/vagrant
