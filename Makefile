VENV := .venv
BIN := $(VENV)/bin
PY ?= python3
export OMP_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test test-slow check bench install

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PY) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/selgen demo

test: install
	$(BIN)/pytest -n 2 --dist loadgroup -m 'not slow' -rs

test-slow: install
	$(BIN)/pytest -n 2 -m slow -rP

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/pytest -n 0 tests/test_layers.py

bench: install
	$(BIN)/python bench/step_time.py
	$(BIN)/python bench/generation.py
