# Every target builds what it needs, in .venv in this folder. `make demo` and `make test` work on a bare machine with Python 3.11.
PYTHON ?= python3
BIN := .venv/bin
export DO_NOT_TRACK := 1

.PHONY: demo test test-slow lint serve bench checkpoints clean

demo: .venv/ready  ## draw scenes, build a labelled dataset from them, check and score it
	$(BIN)/python -m demo.run

test: .venv/ready lint  ## everything that CI runs
	$(BIN)/python -m pytest

test-slow: .venv/ready  ## kill -9, a real Prefect worker, real-size models, headless Chromium
	$(BIN)/python -m pytest -m slow

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

serve: .venv/ready  ## a local Prefect server with this project's deployments and a worker
	$(BIN)/python -m flows.serve

bench: .venv/ready
	$(BIN)/python -m bench.labeling

checkpoints: .venv/ready  ## teach the embedded models again, an hour and a half on two cores
	$(BIN)/python -m demo.teach_detector
	$(BIN)/python -m demo.teach_segmenter

clean:
	rm -rf .venv demo_out runs

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@
