# Every target does its own set-up; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export UV_PYTHON_DOWNLOADS := never
RUN := .venv/bin

.PHONY: help demo test lint crds down test-loader bench-reconcile bench-gate bench-autoscale bench-autoscale-live bench-gateway bench-loss bench-gpu clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

demo: .venv/ready ## a real cluster, the chart, a first resource, a streamed answer
	@testbed/demo

test: .venv/ready ## lint, unit tests, a real API server, a real node with the real engine
	@tests/run

lint: .venv/ready ## what needs no cluster: ruff, mypy, import-linter, generated files
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

crds: .venv/ready ## write what is generated from the models: crds/, the chart's copy, docs/fields.md
	$(RUN)/falcon-operator crds --out crds
	$(RUN)/falcon-operator crds --chart --out charts/falcon-operator/templates/crds
	$(RUN)/python docs/fields.py

test-loader: .venv/ready ## older vLLM on CPU loads an NVFP4 checkpoint with our plugin; VERSIONS="0.13.0" for some; 1 GB each
	@tests/loader/run $(VERSIONS)

bench-reconcile: .venv/ready ## latency, writes and memory of the operator on the real API server
	@benchmarks/run reconcile

bench-gate: .venv/ready ## time to say which of 1,000 nodes can run an engine, and what it holds there
	@benchmarks/run gate

bench-autoscale: .venv/ready ## autoscaling rules side by side in a simulator; ARGS="--trace FILE --scale 12 --cold-start 60"
	@benchmarks/run autoscale $(or $(ARGS),--trace step)

bench-gateway: .venv/ready ## the gateway on loopback: CPU of a chunk, first token, memory, hang-ups, overtakings
	@benchmarks/run gateway

bench-loss: .venv/ready ## what rollouts, drains and failures cost clients that stream; SCENARIO="rollout node-drain" for some
	@benchmarks/run loss $(SCENARIO)

bench-autoscale-live: .venv/ready ## the autoscaler on a real node: a step of the load, from zero and back, a trace; PART="react wake" for some
	@benchmarks/run autoscale-live $(PART)

bench-gpu: .venv/ready ## the engine on this machine's GPUs, in each form of the weights; ARGS="run --work DIR --results DIR"
	@benchmarks/run gpu $(or $(ARGS),--help)

down: ## stop the cluster and leave nothing behind
	@testbed/down

clean: ## delete the virtual environment and caches inside the repository
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/ready: pyproject.toml uv.lock testbed/uv.txt
	@testbed/python
