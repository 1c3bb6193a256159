# make demo    builds Chestnut, patches a program, runs both and shows what was decided (IN=/bin/ls ARGS='-l /')
# make test    everything that must hold: formatting, lints, all tests, documentation
# make sourcalyzer     the plug-in of chestnut cc, beside chestnut (installs clang 14 and LLVM's headers)
# make sourcalyzer-table   builds musl 1.2.3 and programs with chestnut cc: calls allowed, made, missed; build time
# make deb     packages for Debian, in target/deb: chestnut and dh-chestnut (make packaging uses them as a distribution would)
# make semver  what cargo-semver-checks says of the three libraries against an earlier commit (BASELINE=COMMIT; a few minutes)
# make judge   real workloads of real programs, where ../shared/eval is there (ONLY=ls,nginx)
# make suites  upstream test suites of programs, original against patched (SUITE='sqlite3 redis', ONLY=..., JOBS=2)
# make corpus  what is known about 460 executables of Debian packages, against tests/corpus/expected.txt (INSTALL=1)
# make fuzz    fuzzers over all that reads files, SECONDS=60 of a processor each (nightly Rust; installs cargo-fuzz): table of failures
# make robust  faults, kills and attacks by the hundred, a machine for each kind of program and kernel (docs/robustness.md)
# make robust-distribution   every program of this machine's packages, patched and looked at by other tools, against
#              tests/robust/distribution.txt (INSTALL=1 installs its packages; root; about an hour)
# make robust-reduced   some of each of these, in two minutes
# make distributions   small systems of other distributions, hardened and used (SUITES='bullseye noble'; root, debootstrap)
# make bench   time and memory of chestnut-patch, cold and cached, growth of files, start-up, per-call cost and throughput
#              of what it makes; writes docs/benchmarks.md (SHORT=1: without whole folders and servers)
# make time-by-size    time against size for real programs up to chromium; writes docs/time-by-size.txt and .svg (RUNS=3)
# make scale   300 packages of Debian's archive as jobs that Dask distributes, one report (docs/scale.md; SAMPLE=300)
# make instructions    instructions of the analysis of five fixed programs, against golden numbers (RENEW=1: writes new ones)
# make trace-cost      what tracing costs, beside no tracer and beside strace
# make trace-compare   what traces show beside what strace shows, for real workloads (ONLY=ls,nginx)
# What is missing on the machine is installed with apt-get where that is there, and named where it is not.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: semver instructions time-by-size scale scale-test distributions fuzz robust robust-distribution robust-examples robust-reduced help demo test sourcalyzer sourcalyzer-table judge suites corpus bench manual deb packaging build fmt lint unit doc trace-cost trace-compare
MAKEFLAGS += --no-print-directory

TARGET := $(or $(CARGO_TARGET_DIR),target)
PATCHER := $(abspath $(TARGET))/release/chestnut-patch
EVAL := ../shared/eval
comma := ,

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

sourcalyzer: build
	@.ci/install-packages sourcalyzer
	sourcalyzer/build $(TARGET)/release/chestnut-notes.so

sourcalyzer-table: sourcalyzer
	COST=1 tests/sourcalyzer/run $(dir $(PATCHER))chestnut $(TARGET)/sourcalyzer

fmt:
	cargo fmt --all --check

# The stub's images are compiled by the rewriter's build script; their lints need their own configurations.
lint:
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTFLAGS='--cfg stub_image' cargo clippy -p chestnut-stub --target-dir $(TARGET)/stub-image -- -D warnings
	RUSTFLAGS='--cfg stub_image --cfg stub_trap' CHESTNUT_CALL_NAMES=/dev/null \
		cargo clippy -p chestnut-stub --target-dir $(TARGET)/stub-image -- -D warnings

# What tests find is kept beside what they are built to.
unit:
	XDG_CACHE_HOME=$(abspath $(TARGET))/cache cargo test --workspace

doc:
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps

# Nothing has been published, so that the baseline is a commit.
BASELINE ?= HEAD~1

semver:
	@.ci/install-packages build
	@cargo semver-checks --version >/dev/null 2>&1 || cargo install --locked cargo-semver-checks
	cargo semver-checks --baseline-rev $(BASELINE) -p chestnut-analyzer -p chestnut-rewriter -p chestnut-tracer

judge:
	@if [[ ! -x $(EVAL)/judge ]]; then echo "make judge: $(EVAL)/judge is not there" >&2; exit 2; fi
	@$(MAKE) build
	$(EVAL)/judge $(PATCHER) $(if $(ONLY),--only $(ONLY),--set open)

manual: build
	cargo build --release -p chestnut-cli --example manual

deb: manual
	@.ci/install-packages packaging
	@packaging/build-deb $(dir $(PATCHER)) $(TARGET)/deb

packaging: manual
	@.ci/install-packages packaging
	@tests/packaging/run $(dir $(PATCHER)) $(TARGET)/packaging

SUITE ?= sqlite3 redis nginx coreutils bash perl python3

suites: build
	@SUITES_WORK=$(or $(SUITES_WORK),$(abspath $(TARGET))/suites) ONLY='$(ONLY)' tests/suites/run $(PATCHER) $(SUITE)

corpus: build
	@type jq >/dev/null || .ci/install-packages judge
	@INSTALL='$(INSTALL)' tests/corpus/run $(dir $(PATCHER))chestnut $(TARGET)/corpus

bench: build
	@.ci/install-packages bench
	@mkdir -p $(TARGET)/bench docs
	@benches/run $(PATCHER) $(abspath $(TARGET))/bench | tee $(TARGET)/bench/report
	@{ printf '# Benchmarks\n\nWritten by `make bench`, which says in its own words what it measures; ratios of one run.\n\n'; \
		sed 's/^/    /; s/ *$$//' $(TARGET)/bench/report; } >docs/benchmarks.md

time-by-size: build
	@.ci/install-packages bench
	@benches/time-by-size $(PATCHER) $(abspath $(TARGET))/time-by-size docs/time-by-size

SAMPLE ?= 300

scale: build
	@.ci/install-packages scale
	@packaging/archive/run $(dir $(PATCHER))chestnut $(TARGET)/scale --sample $(SAMPLE) || status=$$?; \
		cat $(TARGET)/scale/report.txt; exit $${status:-0}

scale-test: build
	@.ci/install-packages scale
	@tests/scale/run $(dir $(PATCHER))chestnut $(TARGET)/scale-test

instructions: build
	@.ci/install-packages instructions
	@benches/instructions $(PATCHER) $(TARGET)/instructions $(if $(RENEW),--renew)

SECONDS ?= 60

fuzz:
	tests/robust/fuzz $(SECONDS)

robust: build
	@.ci/install-packages test robust
	tests/robust/fields
	tests/robust/attacks
	tests/robust/faults
	tests/robust/concurrency
	tests/robust/kernels $(PATCHER) $(TARGET)/kernels

robust-examples: build
	@cargo build --release -q -p chestnut-rewriter --example goblin

robust-distribution: robust-examples
	@.ci/install-packages robust
	tests/robust/distribution $(if $(INSTALL),--install) --expect tests/robust/distribution.txt -o $(TARGET)/distribution.txt \
		$(PATCHER) $(abspath $(TARGET))/distribution

# What has a test in `make test` is not repeated here.
robust-reduced: robust-examples
	@.ci/install-packages robust
	tests/robust/kernels -s bullseye -n 2 $(PATCHER) $(TARGET)/kernels
	tests/robust/distribution --expect tests/robust/distribution.txt --every 60 $(PATCHER) $(abspath $(TARGET))/distribution

SUITES ?= bullseye trixie sid noble

distributions: build
	@.ci/install-packages distributions
	tests/distributions/run $(TARGET)/release/chestnut $(abspath $(TARGET))/distributions $(SUITES)

trace-cost: build
	@.ci/install-packages bench
	benches/trace-cost $(dir $(PATCHER))chestnut

trace-compare: build
	@.ci/install-packages bench
	benches/trace-against-strace --runs 5 --workloads $(EVAL)/workloads $(dir $(PATCHER))chestnut \
		$(if $(ONLY),$(subst $(comma), ,$(ONLY)),$(notdir $(wildcard $(EVAL)/workloads/*)))
