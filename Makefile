# make demo    builds Chestnut, patches a program, runs both and shows what was decided (IN=/bin/ls ARGS='-l /')
# make test    everything that must hold: formatting, lints, all tests, documentation
# make judge   real workloads of real programs, where ../shared/eval is there (ONLY=ls,nginx)
# make suites  upstream test suites of programs, original against patched (SUITE='sqlite3 redis', ONLY=..., JOBS=2)
# make bench   time and memory of chestnut-patch, start-up and per-call cost of what it makes
# What is missing on the machine is installed with apt-get where that is there, and named where it is not.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test judge suites bench build fmt lint unit doc
MAKEFLAGS += --no-print-directory

TARGET := $(or $(CARGO_TARGET_DIR),target)
PATCHER := $(abspath $(TARGET))/release/chestnut-patch
EVAL := ../shared/eval

IN ?= /bin/ls
ARGS ?= $(if $(filter ls,$(notdir $(IN))),-l /,--version)

help:
	@sed -n '/^# /!q; s/^# //p' $(firstword $(MAKEFILE_LIST))

build:
	@.ci/install-packages build
	cargo build --release --bins

demo: build
	@.ci/demo $(PATCHER) $(TARGET)/demo $(IN) $(ARGS)

test:
	@.ci/install-packages build test
	@$(MAKE) fmt lint unit doc

fmt:
	cargo fmt --all --check

# The stub's image is compiled by the rewriter's build script; its lints need its own configuration.
lint:
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTFLAGS='--cfg stub_image' cargo clippy -p chestnut-stub --target-dir $(TARGET)/stub-image -- -D warnings

unit:
	cargo test --workspace

doc:
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps

judge:
	@if [[ ! -x $(EVAL)/judge ]]; then echo "make judge: $(EVAL)/judge is not there" >&2; exit 2; fi
	@$(MAKE) build
	$(EVAL)/judge $(PATCHER) $(if $(ONLY),--only $(ONLY),--set open)

SUITE ?= sqlite3 redis nginx coreutils bash perl python3

suites: build
	@SUITES_WORK=$(or $(SUITES_WORK),$(abspath $(TARGET))/suites) ONLY='$(ONLY)' tests/suites/run $(PATCHER) $(SUITE)

bench: build
	@.ci/install-packages bench
	@benches/run $(PATCHER) $(TARGET)/bench
