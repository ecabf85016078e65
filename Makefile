# SPDX-License-Identifier: Apache-2.0
# The commands of a developer, and of a new user: `make demo` and `make test`.
# Everything that takes more than a line is in scripts/.

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help deps build demo test matrix bench

help:
	@echo "make demo    build Lacuna, run a sample service with slow requests, explain them (root)"
	@echo "make test    run everything that proves it (as much as can be run without root)"
	@echo "make build   build target/release/lacuna"
	@echo "make matrix  run the tests in every kernel of vm/kernels.toml, or in one: KERNEL=6.1 (root)"
	@echo "make bench   measure its cost on this machine (root)"
	@echo "make deps    install from the distribution what is missing"

deps:
	@scripts/deps

build: deps
	cargo build --release --locked

demo: build
	@scripts/venv demo/requirements.txt
	@$(SUDO) demo/run target/release/lacuna

test:
	@scripts/deps kernels programs
	@scripts/test

matrix:
	@scripts/deps kernels
	@scripts/matrix $(KERNEL) --record

bench: deps
	cargo bench --workspace --locked --benches
