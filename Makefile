# One line a target; PYTHON picks the interpreter.
PYTHON ?= python

.PHONY: build test lint sanitize cuda gpu bench ci

build:    ; $(PYTHON) setup.py -q build_ext --inplace
test:     ; $(PYTHON) -m pytest
lint:     ; $(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .
sanitize: ; $(PYTHON) tools/sanitize.py
cuda:     ; $(PYTHON) tools/compile_cuda.py
gpu:      ; $(PYTHON) tools/gpu.py
bench:    ; $(PYTHON) benchmarks/run.py
ci:       ; .ci/run
