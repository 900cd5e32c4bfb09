VENV := .venv
BIN := $(VENV)/bin
PY ?= python3
export OMP_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo findings test test-slow check bench install

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PY) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/selgen demo

# The study's 20 claims from five seeds on the three miniatures. Interrupted, it goes on where it stopped. A sweep with
# failed runs (exit code 1) does not keep the claims from being decided: seeds that lack a run are left out and counted.
FINDINGS := sycophancy emergent_misalignment proxy_quality proxy_quality_em triggers
findings: install
	for name in $(FINDINGS); do $(BIN)/selgen sweep -c configs/findings/$$name.yaml --out runs/findings/$$name || [ $$? -eq 1 ] || exit 1; done
	$(BIN)/selgen findings $(addprefix runs/findings/,$(FINDINGS)) --markdown docs/findings.md

# A file's tests go to one worker, so that what they share is made once.
test: install
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow' -rs

# Clusters are tested here alone: Ray's and Slurm's packages come with it.
test-slow: install
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev,ray,slurm]'
	$(BIN)/pytest -n 2 -m slow -rP

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/pytest -n 0 tests/test_layers.py

bench: install
	for name in step_time kl_vocabulary growth cost_model study workers generation; do $(BIN)/python bench/$$name.py || exit 1; done
