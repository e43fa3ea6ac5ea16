# One line a target; PYTHON picks the interpreter.
PYTHON ?= python

.PHONY: build test lint types docs links sanitize cuda gpu bench ci

build:    ; $(PYTHON) setup.py -q build_ext --inplace
test:     ; $(PYTHON) -m pytest
lint:     ; $(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .
types:    ; $(PYTHON) -m mypy && $(PYTHON) -m pyright --pythonpath "$$($(PYTHON) -c 'import sys; print(sys.executable)')" tests/typing
docs:     ; rm -rf build/docs && $(PYTHON) -m sphinx -Wq --keep-going -d build/docs/pages docs build/docs/html && $(PYTHON) -m zipfile -c build/docs/mtlfast-docs.zip build/docs/html
links:    ; $(PYTHON) -m sphinx -Wq -b linkcheck -d build/docs/pages docs build/docs/links
sanitize: ; $(PYTHON) tools/sanitize.py
cuda:     ; $(PYTHON) tools/compile_cuda.py
gpu:      ; $(PYTHON) tools/gpu.py
bench:    ; $(PYTHON) benchmarks/run.py
ci:       ; .ci/run
