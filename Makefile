# For GNU make and BSD make alike: nothing here that POSIX does not have, except ?= (which both know).
#
# Every target sets up what it needs.  Another interpreter, in an environment of its own:
#     make test PYTHON=python3.13 VENV=.venvs/3.13

PYTHON ?= python3
VENV ?= .venv
DEMO_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
ABI3 ?=
JOBS ?= auto

# A stamp a set of requirements: `make demo` does not wait for linters, nor need them to exist for this machine.
READY_TO_TEST = $(VENV)/ready-to-test
READY_TO_LINT = $(VENV)/ready-to-lint
READY_FOR_DOCS = $(VENV)/ready-for-docs
SETUP = requirements/venv.sh
ENGINE = vhostuser/virtqueue/engine
ENGINE_SOURCES = setup.py $(ENGINE)/*.pyx $(ENGINE)/*.pxd $(ENGINE)/*.h

help:
	@echo 'make demo     the whole story: a backend process, shared memory, a disk written and read back'
	@echo 'make test     the tests, with branch coverage and its floor'
	@echo 'make lint     ruff (format and rules) and mypy --strict'
	@echo 'make docs     the documentation, into site/; a dangling link is an error'
	@echo 'make peers    fetch the programs that tests/peers talks to (Debian packages)'
	@echo 'make bench    measure ours beside qemu-storage-daemon and libblkio; renews docs/benchmarks.md (20 minutes)'
	@echo 'make wheel    a wheel, into dist/; ABI3=1: one for every CPython from 3.11 on'
	@echo 'make clean    remove everything that these targets made'
	@echo
	@echo 'Set-up happens by itself, in $(VENV), with $(PYTHON).  More: DEMO_ARGS="--json", PYTEST_ARGS="-k memory", JOBS=4.'

demo: $(READY_TO_TEST)
	$(VENV)/bin/vhost-user demo $(DEMO_ARGS)

test: $(READY_TO_TEST)
	$(VENV)/bin/python -m pytest --numprocesses=$(JOBS) --dist=loadfile \
	    --cov --cov-report= --cov-report=json:$(VENV)/coverage.json $(PYTEST_ARGS)
	$(VENV)/bin/python tests/tools/coverage_floor.py $(VENV)/coverage.json
	@echo 'line by line: $(VENV)/bin/coverage report'

lint: $(READY_TO_LINT)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

docs: $(READY_FOR_DOCS)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet --site-dir site
	@echo 'site/index.html is ready'

peers:
	./tests/peers/install

# Wants a machine that does nothing else.  BENCH_ARGS="--quick" takes three minutes.
bench: $(READY_TO_TEST) peers
	$(VENV)/bin/python -m benchmarks --page docs/benchmarks.md $(BENCH_ARGS)

# Everything in build/ goes into the wheel: what an earlier one left there would go, too.
wheel: $(READY_TO_TEST)
	rm -rf build
	VHOST_USER_BUILD_ABI3=$(ABI3) $(VENV)/bin/python -m pip wheel -q --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist

clean:
	rm -rf .venv .venv.log .venvs build dist site htmlcov .coverage .coverage.* *.egg-info
	rm -f $(ENGINE)/*.c $(ENGINE)/*.so
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY_TO_TEST): $(SETUP) requirements/test.txt pyproject.toml $(ENGINE_SOURCES)
	@sh $(SETUP) $(PYTHON) $(VENV) requirements/test.txt
	@touch $@

$(READY_TO_LINT): $(READY_TO_TEST) requirements/dev.txt
	@sh $(SETUP) $(PYTHON) $(VENV) requirements/dev.txt
	@touch $@

$(READY_FOR_DOCS): $(READY_TO_TEST) requirements/docs.txt
	@sh $(SETUP) $(PYTHON) $(VENV) requirements/docs.txt
	@touch $@

# Two targets may want the same environment: with -j they still take turns.
.NOTPARALLEL:
.PHONY: help demo test lint docs peers bench wheel clean
