# SPDX-License-Identifier: GPL-2.0
#
# All of it needs root, network for the first time, and Debian 12 or 13; all
# else is made in $DM_REMAP_CACHE (by default /var/cache/dm-remap).

.PHONY: all dmremap demo test test-all test-hostile test-mutations test-debug test-kcsan debug-kernel kcsan-kernel bench bench-scan fuzz stress simulation lint format update-kernel clean help

all: ## Build the module for the newest Debian kernel with Rust, or for the installed one of KVER=<release>
	@scripts/build $(KVER)

dmremap: ## Build the tool for spares that no device uses, and print where it is
	@scripts/build-dmremap

demo: ## Relocate a failing block in a virtual machine, step by step
	@scripts/demo

test: ## Run all tests, on the host and in the virtual machine
	@tests/run $(TEST_OPTIONS)

test-all: ## Run everything that checks anything, for hours, and sum up
	@tests/all

test-hostile: ## Feed the module with metadata, table lines and messages that are wrong, by the thousand; KERNEL=debug is another kernel
	@DM_REMAP_EFFORT=10 tests/run $(if $(filter debug,$(KERNEL)),--debug-kernel) --filter '^vm/(damaged-metadata|hostile-input)$$'

test-mutations: ## Break the module on purpose, in many ways, and see that the tests find each
	@tests/mutate

test-debug: ## Run the tests of the virtual machine on a kernel that checks memory and locks
	@tests/run --debug-kernel

test-kcsan: ## Run those in which much happens at once on a kernel that looks for data races
	@tests/run --kcsan-kernel

debug-kernel: ## Build the kernel of test-debug, and print where it is
	@scripts/prepare-debug-kernel

kcsan-kernel: ## Build the kernel of test-kcsan, and print where it is
	@scripts/prepare-debug-kernel --kcsan

fuzz: ## Feed what reads metadata, table lines and messages with guided random input, for FUZZ_TIME=60 seconds
	@scripts/fuzz --time $(or $(FUZZ_TIME),60)

stress: ## Let everything happen at once, at random, for STRESS_TIME=300 seconds; SEED=n plays a failed episode again, KERNEL=debug or kcsan is another kernel
	@scripts/stress --time $(or $(STRESS_TIME),300) $(if $(SEED),--seed $(SEED)) $(if $(KERNEL),--$(KERNEL)-kernel)

bench: ## Measure the cost of a request by the instruction clock
	@scripts/bench

bench-scan: ## Measure how much the background pass delays those who use the device meanwhile
	@scripts/bench-scan

simulation: ## Measure the health model on simulated disks, and draw it
	@scripts/simulation

lint: ## Check formatting, lints, shell scripts and where unsafe stands
	@scripts/lint

format: ## Format the Rust code
	@scripts/lint --format

update-kernel: ## Change to the kernel that is the newest now
	@scripts/prepare-kernel --update

clean: ## Remove what was built in the checkout
	rm -rf build

help: ## Print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16
