# All commands need Python 3.11, git and make. Everything else goes into .venv, with the versions of constraints.txt.

PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip

# Installed with the pinned build backend instead of an isolated, unpinned one.
INSTALL := $(PIP) install -c constraints.txt --no-build-isolation

# Three processes with one thread each, for two cores: a tenth of the tests' time is waiting for other processes, and
# torch's own threads would fight over the cores. Files go to whichever is free, in the order of tests/conftest.py: the
# longest first.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder \
	$(patsubst %,--ignore tests/%,$(APART) $(PRIVILEGED))

# Folders of tests with an environment of their own, .venv-NAME, on top of $(VENV):
#   engines   real vLLM, built for CPUs (1.1 GB, a minute to install); its own pins contradict ours, and yet they work together
#   trackers  wandb, trackio and mlflow (200 MB)
#   site      mkdocs and its theme (60 MB)
#   graders   math graders of other frameworks (10 MB)
#   gym       reasoning-gym (60 MB)
#   browser   selenium, which drives Chromium, to look at reports (30 MB)
APART := engines trackers site graders gym browser

# Folders of tests that need Debian's packages or root.
PRIVILEGED := sandbox

.PHONY: train test chromium $(APART:%=test-%) $(PRIVILEGED:%=test-%) quick lint types unit docs site graders constraints clean

# ARGS="--steps 2" makes it short.
train: $(VENV)/.installed
	$(BIN)/rlvr train --verifier math --trainer grpo-off $(ARGS)

test: lint types unit

# A minute: what needs no model and starts few processes. tests/conftest.py says which tests these are.
quick: lint
	$(PYTEST) -m "not models and not slow"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

unit: $(VENV)/.installed-dev
	$(PYTEST)

$(APART:%=test-%): test-%: .venv-%/.installed
	OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest tests/$*

# Debian's packages, 500 MB; that needs root.
test-browser: chromium
chromium:
	command -v chromium && command -v chromedriver || (apt-get update && apt-get install -y chromium chromium-driver)

# Attacks on the sandbox of programs, as root and as another user. Needs root, and Debian's packages if bubblewrap or a
# Python that every user may run is missing.
test-sandbox: $(VENV)/.installed-dev
	command -v bwrap && test -x /usr/bin/python3 || (apt-get update && apt-get install -y bubblewrap python3)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/sandbox

# Runs every command and every example in the documents again, and writes down what they print.
docs: $(VENV)/.installed-dev
	$(BIN)/python docs/refresh.py

# The documents as a web site, in build/site; warnings are errors.
site: .venv-site/.installed
	NO_MKDOCS_2_WARNING=1 .venv-site/bin/python -m mkdocs build --quiet

# Our math verifier beside the graders of other frameworks; FILES="a.jsonl b.jsonl" adds labeled pairs.
graders: .venv-graders/.installed
	.venv-graders/bin/python benchmarks/graders.py $(FILES)

# A stamp is written after its step has succeeded, so an interrupted step is done again and a finished one is not.
$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt setuptools
	$(INSTALL) -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt setuptools
	$(INSTALL) -e '.[dev]'
	touch $(VENV)/.installed $@

.venv-%/.installed: $(VENV)/.installed-dev tests/%/requirements.txt
	$(PYTHON) -m venv $(@D)
	echo 'import site; site.addsitedir("$(abspath $(VENV))/lib/python3.11/site-packages")' \
		> $(@D)/lib/python3.11/site-packages/base.pth
	$(@D)/bin/python -m pip install --no-deps -r tests/$*/requirements.txt
	test ! -f tests/$*/lighteval.txt || $(@D)/bin/python -m pip install --no-deps -t $(@D)/lighteval -r tests/$*/lighteval.txt
	touch $@

# Pins what is installed, after `make test` has passed with it. A wheel's local version (2.13.0+cpu) is the machine's
# business and is cut off. To move a pin: `.venv/bin/pip install -U NAME && make test constraints`.
constraints: $(VENV)/.installed-dev
	$(PIP) freeze --all --exclude-editable --exclude pip > constraints.new
	sed 's/+[^ ]*$$//' constraints.new > constraints.txt
	rm constraints.new
	touch $(VENV)/.installed $(VENV)/.installed-dev

clean:
	rm -rf $(VENV) $(APART:%=.venv-%) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
