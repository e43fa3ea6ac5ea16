# One line a target; PYTHON picks the interpreter.
PYTHON ?= python

.PHONY: build compdb test quick lint format types docs links sanitize aarch64 clang cuda gpu wheel bench ci

build:    ; $(PYTHON) setup.py -q build_ext --inplace
compdb:   build ; $(PYTHON) -m ninja -C $(or $(MTLFAST_OBJECTS),$(firstword $(wildcard build/temp*/mtlfast))) -t compdb compile > compile_commands.json
test:     ; $(PYTHON) -m pytest
quick:    ; $(PYTHON) -m pytest -q tests/test_architecture.py tests/test_errors.py tests/test_contracts_values.py -k "architecture or errors or pairwise_reg"
lint:     ; $(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check . && $(PYTHON) tools/format_cpp.py --check
format:   ; $(PYTHON) -m ruff check --fix . && $(PYTHON) -m ruff format . && $(PYTHON) tools/format_cpp.py
types:    ; $(PYTHON) -m mypy && $(PYTHON) -m pyright --pythonpath "$$($(PYTHON) -c 'import sys; print(sys.executable)')" tests/typing
docs:     ; rm -rf build/docs && $(PYTHON) -m sphinx -Wq --keep-going -d build/docs/pages docs build/docs/html && $(PYTHON) -m zipfile -c build/docs/mtlfast-docs.zip build/docs/html
links:    ; $(PYTHON) -m sphinx -Wq -b linkcheck -d build/docs/pages docs build/docs/links
sanitize: ; $(PYTHON) tools/sanitize.py
aarch64:  build ; $(PYTHON) tools/replay.py --cxx aarch64-linux-gnu-g++ --runner "qemu-aarch64 -L /usr/aarch64-linux-gnu"
clang:    build ; $(PYTHON) tools/replay.py --cxx clang++
cuda:     ; $(PYTHON) tools/compile_cuda.py
gpu:      ; $(PYTHON) tools/gpu.py
wheel:    ; $(PYTHON) tools/wheel.py
bench:    ; $(PYTHON) benchmarks/run.py
ci:       ; .ci/run
