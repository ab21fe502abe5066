# `make help` says what there is. Everything a target needs is fetched and built by it; a second run skips what is there.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Where the usual installers put Go and Rust, for shells that have not been told.
export PATH := $(PATH):/usr/local/go/bin:$(HOME)/.cargo/bin

PYTHON := .venv/bin/python
STAMPS := build/stamps
DEMO := examples/video-analytics

SOAK_SECONDS ?= 3600

.PHONY: help demo test build lint bench bench-proxy bench-transfer soak sanitize models miri test-soak test-rust test-demo test-clients test-python test-protocols test-interop test-manifests test-cluster images test-images clean-state

help: ## say what there is
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: $(STAMPS)/python release ## run the video workflow, deferred and inline, and show what moved (ARGS=--json)
	$(PYTHON) $(DEMO)/demo.py --zipline target/release/zipline $(ARGS)

test: lint test-rust models sanitize test-soak test-demo test-clients test-python test-manifests test-images test-protocols test-interop ## run every check and every test

build: $(STAMPS)/rust ## build all binaries for development
	cargo build --workspace --bins

release: $(STAMPS)/rust ## build all binaries for use
	cargo build --release --workspace --bins
.PHONY: release

lint: $(STAMPS)/rust ## check format, lints and documentation
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

bench: release ## measure invokes, inline and deferred, of 1 KB to 100 MB
	target/release/zipline bench invoke $(ARGS)

bench-proxy: release $(STAMPS)/knative $(STAMPS)/bench ## measure our queue-proxy, Knative's and nginx before the same upstream
	target/release/zipline bench proxy $(ARGS)

bench-transfer: release $(STAMPS)/peers ## measure payloads from memory to memory beside Redis, S3 servers and nginx (as root; ARGS=--quick)
	scripts/setup-bench.sh sdk
	target/release/zipline bench transfer $(ARGS)

soak: release ## an hour of mixed payloads while senders, receivers and links fail at random (SOAK_SECONDS, ARGS=--seed N)
	@mkdir -p build
	target/release/zipline-soak --seconds $(SOAK_SECONDS) --json build/soak.json $(ARGS)

test-rust: build $(STAMPS)/bench ## run the Rust tests
	cargo test --workspace

test-soak: build ## the same for twenty seconds and with smaller payloads
	target/debug/zipline-soak --seconds 20 --storm 9 --calm 11 --settle 8 --most-bytes 8000000 --workers 4 --full-rest false --rest 60

sanitize: build ## run the tests of everything that calls unsafe code under AddressSanitizer and LeakSanitizer
	scripts/sanitize.sh

# A folder of its own: the flag would otherwise rebuild everything else.
models: $(STAMPS)/rust ## try every order in which threads meet in payload memory (loom)
	RUSTFLAGS="--cfg loom" cargo test --profile models --target-dir target/models -p zipline-segment -p zipline-buffer --lib

miri: $(STAMPS)/rust ## run those of its tests that need no kernel in Miri (a nightly toolchain's component)
	scripts/sanitize.sh miri

test-demo: $(STAMPS)/python ## run the demo's functions and scene without Zipline
	$(PYTHON) -m pytest -q $(DEMO)/tests

test-clients: $(STAMPS)/python $(STAMPS)/node $(STAMPS)/go build ## run the client matrix (docs/clients.md)
	$(PYTHON) -m pytest -q clients

test-python: build ## install the Python package into build/python-sdk and run its tests, its guide's examples (docs/python.md) and examples/scatter-gather
	scripts/setup-python-sdk.sh
	build/python-sdk/bin/ruff check --quiet python
	build/python-sdk/bin/ruff format --check --quiet python
	build/python-sdk/bin/ruff check --quiet --config python/pyproject.toml examples/scatter-gather
	build/python-sdk/bin/ruff format --check --quiet --config python/pyproject.toml examples/scatter-gather
	cd python && ../build/python-sdk/bin/mypy --no-error-summary
	build/python-sdk/bin/pytest -q python/tests

test-protocols: $(STAMPS)/protocols $(STAMPS)/knative build ## run h2spec, gRPC's, WebSocket and smuggling cases (interop/protocols)
	build/protocols/protocols

test-interop: $(STAMPS)/interop build ## compare with Knative's queue-proxy, scenario by scenario (interop/knative; as root)
	cd interop/knative && ../../build/knative/interop.test -test.timeout 600s

test-manifests: build ## hold what deploy/ renders to against the types of Kubernetes and Knative (interop/manifests)
	cd interop/manifests && go vet -mod=readonly ./... && go test -mod=readonly -count=1 ./...

test-cluster: $(STAMPS)/cluster $(STAMPS)/rust ## run controller and commands against a real kube-apiserver and etcd (interop/cluster)
	cargo build -p zipline-controller -p zipline-queue-proxy -p zipline-cli
	cd interop/cluster && ZIPLINE_CLUSTER=$(CURDIR)/build/cluster ZIPLINE_CONTROLLER=$(CURDIR)/target/debug/zipline-controller \
		ZIPLINE_QUEUE_PROXY=$(CURDIR)/target/debug/zipline-queue-proxy ZIPLINE=$(CURDIR)/target/debug/zipline ZIPLINE_KUBECTL=$(CURDIR)/build/cluster/kubectl \
		ZIPLINE_KNATIVE_SERVING=$$(cd ../manifests && go mod download knative.dev/serving && go list -mod=readonly -m -f '{{.Dir}}' knative.dev/serving) \
		go test -mod=readonly -trimpath -count=1 -v .

images: $(STAMPS)/rust ## build static binaries and pack each into an OCI archive under build/images
	images/build.sh

test-images: images $(STAMPS)/python ## read the archives and run their binaries confined (as root)
	$(PYTHON) -m pytest -q images

clean-state: ## remove what set-up and runs left, except Rust's target folder
	rm -rf build .venv

# --- set-up: one stamp per step, renewed when what it read has changed ---

$(STAMPS)/debian: scripts/setup-debian.sh
	scripts/setup-debian.sh
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/rust: scripts/setup-rust.sh rust-toolchain.toml | $(STAMPS)/debian
	scripts/setup-rust.sh
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/bench: scripts/setup-bench.sh
	scripts/setup-bench.sh
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/peers: scripts/setup-bench.sh | $(STAMPS)/rust
	scripts/setup-bench.sh peers
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/python: scripts/setup-python.sh $(DEMO)/requirements.txt clients/requirements.txt | $(STAMPS)/debian
	scripts/setup-python.sh clients/requirements.txt
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/node: scripts/setup-node.sh | $(STAMPS)/debian
	scripts/setup-node.sh
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/go: scripts/setup-go.sh $(wildcard clients/go/*.* clients/go/*/*.go)
	scripts/setup-go.sh
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/knative: scripts/setup-knative.sh interop/knative/go.mod interop/knative/go.sum
	scripts/setup-knative.sh
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/protocols: scripts/setup-protocols.sh $(wildcard interop/protocols/*.* interop/protocols/*/*.*)
	scripts/setup-protocols.sh
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/cluster: scripts/setup-cluster.sh interop/cluster/go.mod interop/cluster/go.sum
	scripts/setup-cluster.sh
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/interop: $(STAMPS)/knative $(wildcard interop/knative/*.* interop/knative/internal/*/*.go interop/knative/vectors/*.go)
	cd interop/knative && go vet -mod=readonly ./...
	cd interop/knative && go test -mod=readonly -trimpath -c -o ../../build/knative/interop.test .
	@mkdir -p $(STAMPS) && touch $@
