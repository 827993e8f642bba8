# The two commands of the README are `make demo` and `make test`; each sets up what it needs and reuses it.
PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
# Processes that test, of one thread each: two, where there are 10 GB of memory for each.
WORKERS ?= $(shell awk '/MemAvailable/ { print $$2 < 20000000 ? 1 : 2 }' /proc/meminfo 2>/dev/null || echo 1)

.DEFAULT_GOAL := help
.PHONY: help setup demo test fuzz oldest pictures sums lint hosts bench gpu reproduce

help: ## Say what there is
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 14

setup: ## Make .venv/ and .comfyui/ (the other commands do it themselves)
	@$(PYTHON) .ci/bootstrap.py

demo: setup ## Learn a concept from photos, compose it, and put the pictures into demo-output/
	@$(VENV_PYTHON) -m miniworld.demo

test: setup ## Run the whole test suite
	@$(VENV_PYTHON) tests/support/chromium.py
	$(VENV_PYTHON) -m ruff check .
	OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n $(WORKERS) --dist loadfile tests/unit tests/host tests/browser

fuzz: setup ## Run every attack of tests/host/attacks; COMPINV_SEED=1000 for others
	COMPINV_ATTACK=all $(VENV_PYTHON) -m pytest tests/host/attacks

oldest: setup ## Run the unit tests with the oldest packages of requirements.txt
	$(VENV_PYTHON) .ci/lower_bounds.py

pictures: setup ## Make the pictures of the editor in docs/images/ anew; look at them, then `make sums`
	COMPINV_PICTURES=1 $(VENV_PYTHON) -m pytest tests/browser/templates/test_miniature_world.py

sums: ## Write the hashes of files that nobody reads, after changing some on purpose
	git ls-files -- '*.safetensors' '*.pt' '*.png' '*.jpg' | LC_ALL=C sort | xargs sha256sum > SHA256SUMS

lint: setup ## Run ruff and pyright
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m pyright

hosts: setup ## Test on the oldest and the newest ComfyUI, each in an environment of its own in .hosts/
	@$(VENV_PYTHON) .ci/hosts.py

reproduce: setup ## Print the paper's Table 1 on the miniature world, small, and draw its figures
	@$(VENV_PYTHON) -m bench.reproduce --tier smoke --workers 2

bench: setup ## Print the tables of speed and memory
	$(VENV_PYTHON) bench/training_step.py
	$(VENV_PYTHON) bench/guidance/cost.py

gpu: setup ## Measure the pack on this machine's graphics card, in at most eight minutes
	$(VENV_PYTHON) -m bench.device
