# Everything works on a machine that has only Python (3.11 or newer) and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-all check format docs readme reliability fuzz clean

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "cgconvert needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test "$$(uname)" != Linux || command -v nvidia-smi >/dev/null || $(BIN)/python -c 'import torch' 2>/dev/null || \
	  echo "There is no NVIDIA GPU here, and pip may fetch PyTorch with gigabytes of CUDA: docs/install.md avoids that."
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,openvino,onnx,train,cloud,ray,ui,preview,large]'
	@touch $@

demo: $(INSTALLED)  ## draw a short video, convert it, show both side by side
	OMP_WAIT_POLICY=passive $(BIN)/python examples/demo.py demo

# Two processes, a file in one of them: most machines have two cores, and fixtures are made once for a file.
PYTEST := OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

test: $(INSTALLED)  ## the tests that take minutes
	$(PYTEST) -m "not slow"

test-all: $(INSTALLED)  ## all of them
	$(PYTEST)

check: $(INSTALLED)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)  ## make docs/cli.md anew from the commands' help
	$(BIN)/python -m cgconvert.cli.reference > docs/cli.md

readme: $(INSTALLED)  ## make the README's tables anew from benchmarks/results
	$(BIN)/python benchmarks/readme_tables.py

reliability: $(INSTALLED)  ## make docs/reliability.md anew from benchmarks/results
	$(BIN)/python benchmarks/reliability_page.py

fuzz: $(INSTALLED)  ## ten minutes of damaged and hostile files; finds are kept in build/fuzz
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]' || \
	  echo "atheris cannot be installed here: model files are fuzzed without coverage as the guide."
	OMP_WAIT_POLICY=passive $(BIN)/python benchmarks/fuzz/run.py --seconds 600 --add

clean:
	rm -rf $(VENV) demo build *.egg-info
