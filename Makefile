# make demo        the quickstart, with only what users need
# make test        the fast tests          make test-slow   the others
# make lint        ruff and pyright        make examples    every numbered example
# make test JOBS=8  on a machine with more cores
# make test T=tests/_rules/test_resizing.py  a part; also T='tests/_rules -k Resize -x'
# make faults      all that is drawn at random, for an hour; records it: make test-slow takes a share
# make conformance  every layer, loss and op, and whether docs/coverage.md says what came out; records it
# make coverage     the same, and writes docs/coverage.md
# make docs        the site, in build/docs; runs the examples that changed since the last time
# make bench       all benchmarks, for hours; peers get environments of their own; writes docs/benchmarks.md
# make bench-quick  small sizes of all of them, without peers, in minutes
# make test-lowest  a part of the tests with the oldest versions that pyproject.toml allows
# make dist      the archives for an index, the same ones for the same commit
# make clean       removes the environment and everything built

PYTHON ?= python3
# Which tests, and other arguments of pytest; all of them by default.
T =
JOBS ?= 2
BIN := .venv/bin
# 3: on a machine without a GPU, TensorFlow logs its absence as an error.
QUIET := TF_CPP_MIN_LOG_LEVEL=3
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-slow faults test-lowest conformance test-conformance coverage lint examples docs dist bench bench-quick clean

demo: .venv/.ready-examples
	$(QUIET) $(BIN)/python examples/01_quickstart.py

test: .venv/.ready-test
	$(QUIET) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(T)

test-slow: .venv/.ready-dev
	$(QUIET) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m slow $(T)

LOWEST := layers/test_layers _derivatives/test_linearize project/test_typing \
    _curvature/test_blocks _rules/test_sealing _rules/test_functions optimizers/test_fit

faults: .venv/.ready-dev
	WHOLE=1 $(QUIET) $(BIN)/python -m pytest -n $(JOBS) -m slow tests/faults

test-lowest: .venv-lowest/.ready
	$(QUIET) .venv-lowest/bin/python -m pytest -n $(JOBS) $(LOWEST:%=tests/%.py)

conformance: .venv/.ready-dev
	$(QUIET) $(BIN)/keras-fwd coverage --check --jobs $(JOBS)

# What a change needs: a share, where the record says that nothing it depends on has changed.
test-conformance: .venv/.ready-dev
	$(QUIET) $(BIN)/keras-fwd coverage --check --share --jobs $(JOBS)

coverage: .venv/.ready-dev
	$(QUIET) $(BIN)/keras-fwd coverage --jobs $(JOBS)

lint: .venv/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(QUIET) $(BIN)/python tests/typing/completeness.py

examples: .venv/.ready-examples
	@set -e; for script in examples/[0-9]*.py; do \
	    echo "== $$script"; $(QUIET) $(BIN)/python "$$script"; \
	done

# A failing example and any warning fail the build.
docs: .venv/.ready-dev
	$(QUIET) $(BIN)/python -m sphinx -W --keep-going -q -d build/doctrees docs build/docs

bench bench-quick: .venv/.ready-dev
	$(BIN)/python benchmarks/run.py $(if $(findstring quick,$@),--quick)

# Archives carry the time of the last commit, so that anyone who builds it gets the same bytes.
dist: .venv/.ready-dev
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --no-isolation
	$(BIN)/python -m check_wheel_contents dist/*.whl

# A stamp an extra: installed once, and again only when the requirements change.
.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.ready-examples: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e '.[examples]'
	touch $@

.venv/.ready-test: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e '.[test]'
	touch $@

# The dev extra holds the others, so it renews their stamps too.
.venv/.ready-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e '.[dev]'
	touch .venv/.ready-examples .venv/.ready-test $@

.venv-lowest/.ready: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check \
	    -c constraints-lowest.txt -e '.[report]' pytest pytest-timeout pytest-xdist scipy
	touch $@

clean:
	rm -rf .venv .venv-lowest .venv-peers build docs/api docs/gallery dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
