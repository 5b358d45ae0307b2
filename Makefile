# The commands of this project. `make` lists them.
#
#   PYTHON=python3.12 make setup     another Python for the environment (3.10 or newer)
#   make demo SIZE=tiny              a demo of three minutes;  make demo FRESH=1  starts over
#   make test ARGS="tests/gpt -x"    some of the tests

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
SIZE ?= full
FRESH ?=
MINUTES ?= 60
FUZZ_SECONDS ?= 120
ONLY ?=
ARGS ?=
# what `make bench` measures; every other number's own command stands below its table
SPEED := sampling precision decoding training codebook vqgan loader stream clip

.DEFAULT_GOAL := help
.PHONY: help setup check-env demo long conditions test lint format bench bench-table bench-check bench-gpu reliability fuzz parity docs clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## */  make \1|/p' $(firstword $(MAKEFILE_LIST)) | \
	    while IFS='|' read -r name text; do printf '%-19s %s\n' "$$name" "$$text"; done

setup: $(STAMP)  ## make .venv and install everything, in the versions of constraints.txt

$(STAMP): pyproject.toml setup.py constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "no '$(PYTHON)' here: install Python 3.10 or newer, or name one, as in PYTHON=python3.12 make setup" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1), but 3.10 or newer is needed: name one, as in PYTHON=python3.12 make setup" >&2; exit 2; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { echo "can't make $(VENV): does $(PYTHON) have its venv module (on Debian: apt install python3-venv)?" >&2; exit 2; }
	@echo "installing into $(VENV); the first time takes a few minutes and about 3 GB"
	$(PY) -m pip install --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@
	@$(MAKE) --no-print-directory check-env

check-env:  ## say what the environment runs on
	@$(PY) -c 'import torch; gpu = torch.cuda.is_available(); print("torch", torch.__version__, "on", torch.cuda.get_device_name() if gpu else "the CPU"); gpu or not torch.version.cuda or print("note: this torch is built for CUDA, but there is no GPU; it works and only takes more room.")'

demo: $(STAMP)  ## train both models on a small dataset, sample, judge: runs/demo/index.html (SIZE=tiny, FRESH=1)
	@$(PY) -m tats.demo --size $(SIZE) $(if $(filter-out 0 no false,$(FRESH)),--fresh)

long: $(STAMP)  ## after the demo: videos of 1024 frames, by sliding window and by hierarchy, judged (25 minutes)
	@$(PY) benchmarks/long.py $(if $(filter tiny,$(SIZE)),--size tiny --out runs/long_tiny)

conditions: $(STAMP)  ## after the demo: videos by sentence, sound and class, judged (an hour; ONLY=text, sound or label)
	@$(PY) benchmarks/conditions.py $(if $(filter tiny,$(SIZE)),--size tiny --out runs/conditions_tiny) $(if $(ONLY),--only $(ONLY))

test: $(STAMP)  ## all tests
	@$(PY) -m pytest $(ARGS)

lint: $(STAMP)  ## format, lint, types
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

format: $(STAMP)  ## bring the code into the common format
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench-table: docs  ## the README's speed table and the goals in docs/speed.md, anew from the stored results

bench: $(STAMP)  ## measure all speeds on this machine; the recipes' numbers come from make demo, long, conditions
	@for name in $(SPEED); do echo "== benchmarks/$$name.py"; $(PY) benchmarks/$$name.py || exit 1; done
	@$(PY) benchmarks/tables.py

bench-check: $(STAMP)  ## measure again for some minutes; fails where a ratio to the published way fell (ARGS="--only vqgan")
	@$(PY) benchmarks/check.py $(ARGS)

bench-gpu:  ## check and time the Triton kernels on this machine's GPU (at most 8 minutes; needs torch and triton only)
	@$(if $(wildcard $(PY)),$(PY),$(PYTHON)) kernels/bench.py

reliability: $(STAMP)  ## prove what docs/reliability.md promises, with kills and broken files (MINUTES=60)
	@$(PY) tests/reliability/everything.py --minutes $(MINUTES)
	@$(PY) benchmarks/tables.py

fuzz: $(STAMP)  ## feed broken files to the readers of every outside format (FUZZ_SECONDS=120)
	@$(PY) tests/fuzz/run.py --seconds $(FUZZ_SECONDS) $(ARGS)

parity: $(STAMP)  ## compare with the published system and write docs/parity.md
	@mkdir -p build
	TATS_PARITY_RECORD=build/parity.json $(PY) -m pytest --deselect tests/test_parity.py $(or $(ARGS),$$(grep -rl "reference_cases import" tests --include="test_*.py"))
	$(PY) -m tests.parity_table build/parity.json docs/parity.md

docs: $(STAMP)  ## write the tables of README and docs anew from the stored results
	@$(PY) benchmarks/tables.py

clean:  ## remove what tools left behind; the environment and runs/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
