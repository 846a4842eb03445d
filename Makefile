# make help lists the targets. Variables: PROFILE, ONLY, ARGS, SCHEDULER, PYTHON, VENV.
PROFILE ?= embedded
ONLY    ?=
ARGS    ?=
SCHEDULER ?=
# The interpreter that makes .venv; the environment to use instead of one made here.
PYTHON  ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,\
             $(if $(shell $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo yes),$(p))) python3)
VENV    ?=

ifeq ($(strip $(VENV)),)
ENVIRONMENT := .venv
READY       := .venv/.installed
else
ENVIRONMENT := $(VENV)
READY       := existing
endif
PY  := $(ENVIRONMENT)/bin/python
RUN := $(PY) -m beft.reproduce
# The models and texts that the profile trains on; all others' are in this repository, or named when they are missing.
FILES := $(if $(filter embedded,$(PROFILE)),fetched)

.DEFAULT_GOAL := help
.PHONY: help setup models fetched reproduce publish pages site test bench bench-efficiency bench-gpu bench-steps bench-sweep bench-prompting bench-debiasing bench-serving lab clean existing
.DELETE_ON_ERROR:

help:
	@echo 'make setup                       create .venv, install the exact packages of requirements.lock, and fetch the'
	@echo '                                 models and texts of PROFILE=embedded into the cache (BEFT_CACHE): offline then'
	@echo 'make models                      fetch what PROFILE=laptop needs too: all-mpnet-base-v2 and a language model with'
	@echo '                                 biases, Qwen2.5-Coder-0.5B-Instruct (1.3 and 3.5 GB while they unpack)'
	@echo 'make reproduce                   run the notebooks: build/, figures/ and data/results/ of PROFILE=embedded'
	@echo '     PROFILE=laptop              smoke, embedded, laptop or paper'
	@echo '     ONLY=00_quickstart          one notebook: this one tunes a bias on a file in minutes'
	@echo '     ARGS="-p epochs 3"          parameters of the notebooks'
	@echo '     SCHEDULER=tcp://host:8786   train on the workers of a Dask cluster; local:N starts N here'
	@echo 'make publish PROFILE=laptop      put the outputs in build/laptop into the notebooks, and the numbers into README'
	@echo 'make pages                       write README and docs/ from docs/templates/ and the tables in figures/'
	@echo 'make site                        the notebooks, figures, runs and documents as a website: build/site/index.html'
	@echo 'make test                        the tests, on every core; ARGS="tests/data -n 0" those of a folder in one process,'
	@echo '                                 ARGS="-m fast" those that take under a minute together'
	@echo 'make bench                       those below but for the GPU, one after another (over an hour)'
	@echo 'make bench-efficiency            what a run costs in a bank and in the usual ways: the records of notebook 06'
	@echo 'make bench-gpu                   the same on a GPU, sized for ten minutes with one'
	@echo 'make bench-steps                 time and memory against the plain protocol'
	@echo 'make bench-sweep                 time a grid in banks against one by one, and Dask'
	@echo 'make bench-prompting             time options that share a prompt against one at a time'
	@echo 'make bench-debiasing             time CrowS-Pairs scores in batches against one masked place at a time'
	@echo 'make bench-serving               time many biases on one model against PEFT switching, and a model each'
	@echo 'make lab                         open the notebooks in JupyterLab'
	@echo 'make clean                       remove build/ and caches; records and figures stay'
	@echo 'PYTHON=python3.12 chooses the interpreter of .venv; VENV=path uses an environment you have.'

setup: $(READY) fetched

fetched: $(READY)
	@$(PY) -m beft fetch > /dev/null

models: $(READY)
	@$(PY) -m beft fetch all-mpnet-base-v2 Qwen2.5-Coder-0.5B-Instruct-Q4_K_M

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'error: $(PYTHON) is missing or older than Python 3.11: name a newer one, e.g. make PYTHON=python3.12 $(MAKECMDGOALS)' >&2; exit 1; }
	@rm -f $@
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null && $(PYTHON) -m venv .venv || { rm -rf .venv; \
	  echo 'error: $(PYTHON) cannot create .venv: install its venv module (Debian and Ubuntu: apt install python3-venv), or use VENV=path of an environment you have' >&2; exit 1; }
	@echo 'installing the packages of requirements.lock into .venv (once, some minutes)'
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	-@$(PY) -m beft fetch > /dev/null
	@touch $@

existing:
	@$(PY) -c 'import torch, transformers, peft, papermill, yaml, gguf' 2>/dev/null || { \
	  echo 'error: $(PY) is missing or lacks packages: $(PY) -m pip install -r requirements.lock, or leave VENV out' >&2; exit 1; }

reproduce: $(READY) $(FILES)
	@$(RUN) --profile $(PROFILE) $(if $(strip $(ONLY)),--only $(ONLY)) \
	  $(if $(strip $(SCHEDULER)),--scheduler $(SCHEDULER)) $(ARGS)

publish: $(READY)
	@$(RUN) publish --profile $(PROFILE) $(if $(strip $(ONLY)),--only $(ONLY))

pages: $(READY)
	@$(RUN) pages

# The site shows the committed profile, unless PROFILE is given.
site: $(READY)
	@$(RUN) site $(if $(filter command environment,$(firstword $(origin PROFILE))),--profile $(PROFILE))

test: $(READY)
	@$(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

bench:
	@for part in efficiency steps prompting debiasing serving sweep; do $(MAKE) bench-$$part ARGS= || exit 1; done

bench-efficiency: $(READY)
	@$(PY) -m benchmarks.efficiency $(ARGS)

# The GPU is chosen where there is one; without, this stops.
bench-gpu: $(READY)
	@$(PY) -m benchmarks.efficiency --gpu --rows 600 --validation 400 --epochs 2 $(ARGS)

bench-steps: $(READY)
	@$(PY) -m benchmarks.steps $(ARGS)

bench-sweep: $(READY)
	@$(PY) -m benchmarks.sweep $(ARGS)

bench-prompting: $(READY)
	@$(PY) -m benchmarks.prompting $(ARGS)

bench-debiasing: $(READY)
	@$(PY) -m benchmarks.debiasing $(ARGS)

bench-serving: $(READY)
	@$(PY) -m benchmarks.serving $(ARGS)

lab: $(READY)
	@$(PY) -m jupyter lab notebooks

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis dist *.egg-info
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
