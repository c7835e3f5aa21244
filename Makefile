# make demo   sets up, records two Atari games, pretrains, evaluates, prints a table and the report's path
# make test   sets up, checks style and types, runs the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
DEMO_DATA := data/demo
# Two processes of one thread each: on a laptop that beats one process of two.
TORCHRUN := OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc-per-node=2

.PHONY: setup demo test lint clean-demo

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "jowa needs Python 3.11 or newer: make PYTHON=python3.12"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,video]'
	touch $@

demo: setup
	@if [ -e $(DEMO) ]; then echo "$(DEMO) is there already: 'make clean-demo' removes it and $(DEMO_DATA)."; exit 2; fi
	@set -e; start=$$(date +%s); \
	if [ ! -e $(DEMO_DATA) ]; then \
	  rm -rf $(DEMO_DATA).part; \
	  $(BIN)/python -m jowa.data.record game=[Amidar,Freeway] steps=20000 out=$(DEMO_DATA).part workers=2; \
	  mv $(DEMO_DATA).part $(DEMO_DATA); \
	fi; \
	$(TORCHRUN) -m jowa.pretrain +exp=demo data.path=$(DEMO_DATA) out=$(DEMO); \
	$(TORCHRUN) -m jowa.evaluate ckpt=$(DEMO) planner=demo device=cpu; \
	echo "The demo took $$(( ($$(date +%s) - start) / 60 )) minutes after the set-up."

clean-demo:
	rm -rf $(DEMO) $(DEMO_DATA) $(DEMO_DATA).part

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2
