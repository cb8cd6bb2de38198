# Everything a person runs. `make` keeps its environment in .venv and installs only when pyproject.toml or native/ has changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where torch's CPU build comes from: on Linux a plain "pip install torch" brings gigabytes of CUDA, this index does not.
# Where it cannot be reached, torch is taken from the index that pip is set up with (PIP_INDEX_URL), after a warning.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := torch==2.13.0

.PHONY: run test lint format campaign peers claim clean

run: $(VENV)/.installed  ## start the page on http://127.0.0.1:7860
	$(BIN)/python app.py --mode single --port 7860

test: $(VENV)/.installed-dev  ## everything the tests need, then the tests
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev  ## ruff, mypy --strict, and the C++ of native/
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	scripts/lint-native $(VENV)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i native/* tests/engine/native/*.cpp tests/engine/native/emulated/*

campaign: $(VENV)/.installed-dev  ## the long versions of the tests
	scripts/install-arm
	QWEN_AIO_CAMPAIGN=1 $(BIN)/python -m pytest --timeout 1800

peers:  ## the engines that benchmarks/peers compares with, into build/peers
	PYTHON=$(PYTHON) scripts/install-peers

claim: $(VENV)/.installed  ## the published claims, checked with the weights in MODEL
	$(BIN)/python -m benchmarks.claim --model "$(or $(MODEL),bundled)"

$(VENV)/.installed: pyproject.toml setup.py $(wildcard native/*)
	PYTHON="$(PYTHON)" TORCH="$(TORCH)" TORCH_INDEX="$(TORCH_INDEX)" scripts/install $(VENV)
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	scripts/install-browser
	scripts/install-nginx
	scripts/install-prometheus
	scripts/install-simde
	scripts/install-systemd
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
