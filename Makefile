# The only commands to remember. CI runs the same ones.
.DEFAULT_GOAL := help
.PHONY: help build demo demo-outbound up test test-all test-faults test-memory test-backfill test-long bench bench-quick bench-micro nats fmt lint deny ci clean

CARGO ?= cargo
CARGO_DENY_VERSION := 0.20.2

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

nats: ## find or install a nats-server that is new enough, and print its path
	@sh nats/install.sh

build: ## the services, for tests
	$(CARGO) build --workspace --bins

demo: ## broker, three services, a 300 ms link, 1,000 signed activities; prints what became of them
	@NATS_SERVER="$$(sh nats/install.sh)" && export NATS_SERVER && \
	$(CARGO) build --release --workspace --bins && \
	target/release/demo

demo-outbound: ## broker, delivery-worker, twelve remotes that fail in every way, a kill -9, a backfill; prints what became of it
	@NATS_SERVER="$$(sh nats/install.sh)" && export NATS_SERVER && \
	$(CARGO) build --release -p delivery-worker -p fedstream-tests --bins && \
	target/release/demo_outbound

up: ## the pipeline alone, in front of a destination of yours (FED_DEST_URL, FED_SOURCES, FED_DESTINATIONS)
	@NATS_SERVER="$$(sh nats/install.sh)" && export NATS_SERVER && \
	$(CARGO) build --release --workspace --bins && \
	target/release/demo up

test: ## the suite
	@NATS_SERVER="$$(sh nats/install.sh)" && export NATS_SERVER && \
	$(CARGO) build --workspace --bins && \
	CARGO=$(CARGO) sh tests/application.sh >/dev/null && \
	CARGO=$(CARGO) sh tests/suite.sh

test-all: test test-faults test-memory test-backfill test-long ## the suite and the long runs

test-faults: ## a hundred faults of every part (FAULTS=.. for more or less; FAULTS_SEED=.. has a failed run again)
	@NATS_SERVER="$$(sh nats/install.sh)" && export NATS_SERVER && \
	$(CARGO) build --workspace --bins && \
	FAULTS="$${FAULTS:-100}" $(CARGO) test -p fedstream-tests --test chaos -- --nocapture

test-memory: ## twenty lanes of 5,000 to a dead destination: how much memory every part needs
	@NATS_SERVER="$$(sh nats/install.sh)" && export NATS_SERVER && \
	$(CARGO) build --workspace --bins && \
	MEMORY_LANES="$${MEMORY_LANES:-20}" MEMORY_LANE_MESSAGES="$${MEMORY_LANE_MESSAGES:-5000}" \
	$(CARGO) test -p fedstream-tests --test memory -- --nocapture

test-backfill: ## a history of 5,000 activities, its worker killed half-way
	@NATS_SERVER="$$(sh nats/install.sh)" && export NATS_SERVER && \
	$(CARGO) build --workspace --bins && \
	BACKFILL_ACTIVITIES="$${BACKFILL_ACTIVITIES:-5000}" $(CARGO) test -p fedstream-tests --test outbound -- --nocapture half_way

test-long: ## a million cases of the lane's properties, the larger models, 200,000 histories of the pair
	PROPTEST_CASES=1000000 $(CARGO) test -p fedstream-lane --test properties
	$(CARGO) test -p fedstream-lane --test model -- --ignored --nocapture --test-threads 1
	FED_SEEDS=200000 $(CARGO) test -p fedstream-lane --test pair -- --nocapture
	$(CARGO) test -p fedstream-jetstream --test sessions -- --ignored --nocapture

# What is shipped is what is measured: the profile of deploy/Dockerfile.
BENCH_BUILD = $(CARGO) build --profile dist -p inbox-receiver -p batch-sender -p batch-receiver -p fedstream-bench --bins

bench: ## what fedstream reaches against its limits, some twenty minutes: tables and pictures in docs/performance/ (BENCH="--only front")
	@NATS_SERVER="$$(sh nats/install.sh)" && export NATS_SERVER && \
	$(BENCH_BUILD) && \
	target/dist/fedstream-bench $(BENCH)

bench-quick: ## the same in under three minutes, into target/bench/: one repetition, fewer cells
	@NATS_SERVER="$$(sh nats/install.sh)" && export NATS_SERVER && \
	$(BENCH_BUILD) && \
	target/dist/fedstream-bench --quick --out target/bench $(BENCH)

bench-micro: ## what is pure and hot: formats, signatures, the lane machine
	$(CARGO) bench -p fedstream-wire -p fedstream-lane -p fedstream-service --bench formats --bench machine --bench signature

fmt: ## format
	$(CARGO) fmt --all

lint: ## formatting and clippy, warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

deny: ## licences, bans and sources of every dependency
	@$(CARGO) deny --version 2>/dev/null | grep -q . || $(CARGO) install cargo-deny --locked --version $(CARGO_DENY_VERSION)
	$(CARGO) deny check licenses bans sources

ci: ## what .ci/run does
	bash .ci/run

clean: ## what the demo and make up left behind
	rm -rf .demo .up
