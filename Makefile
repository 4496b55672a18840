# Every task of this repository. `make help` lists them; each runs in the clone and nowhere else.
#
# Two environments share one folder, .venv: the program (make demo: what asking, serving, training
# and evaluating need) and, on top of it, the tools that check the code (make test). A stamp
# remembers each; it is older than its lock when the lock has changed, and only then is anything
# installed again.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
TOOLS := $(VENV)/.tools
LOCKS := requirements.lock requirements-serve.lock requirements-learn.lock
PIP := $(BIN)/python -m pip install -qq

# An index for torch alone, for instance the one with builds for the processor only, which are ten
# times smaller than those for graphics cards: make demo TORCH_INDEX=address
TORCH_INDEX ?=
# Options handed on to the program that a task starts: make demo ARGS="--lang zh"
ARGS ?=
# What the terminal pictures show.
ASKED_EN ?= What is the bill for putting helium back after a quench?
ASKED_ZH ?= 房子的评估报告多久以后就不能用了？
# The folder of open question-answering sets that `make bench` reads.
DATA ?= data

# Nothing here may fetch anything once it is installed.
export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_ROOT_USER_ACTION := ignore
# Compiling all of torch and transformers takes longer than compiling the part that is used.
export PIP_NO_COMPILE := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test lint types layers corpus tests mutants bench bench-model format lock pictures picture start-model clean

help: ## List the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(RUNTIME) ## Install, read the example corpus, answer questions in both languages
	@$(BIN)/consilience demo $(ARGS)
	@echo
	@echo "To type these commands as they stand, first: source $(BIN)/activate"

test: lint types layers corpus tests ## Everything that is checked before a change is taken in

lint: $(TOOLS) ## Check style and formatting
	@echo "Style"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(TOOLS) ## Check types
	@echo "Types"
	@$(BIN)/mypy

layers: $(TOOLS) ## Check that a room imports only from rooms below it
	@echo "Layers"
	@$(BIN)/lint-imports

corpus: $(TOOLS) ## Check that the example documents are what their manuscripts say
	@echo "Example corpus"
	@$(BIN)/python examples/three_organisations/build.py --check

tests: $(TOOLS) ## Run the test suite
	@echo "Tests"
	@$(BIN)/python -m pytest $(ARGS)

mutants: $(TOOLS) ## Break the code place by place and see that its tests notice (ARGS="model web": these)
	@$(BIN)/python tools/mutants.py $(ARGS)

bench: $(TOOLS) ## Measure, and write the tables in docs/benchmarks (DATA=folder of open data sets)
	@echo "Answers over the example corpus"
	@$(BIN)/python benchmarks/answers.py --out docs/benchmarks/answers.md
	@echo "The sum beside transformers"
	@$(BIN)/python benchmarks/model.py --out docs/benchmarks/model.md
	@test -d "$(DATA)" || { echo "No folder '$(DATA)': make bench DATA=folder measures retrieval too" >&2; exit 2; }
	@echo "Retrieval over open data sets"
	@$(BIN)/python benchmarks/retrieval.py --data "$(DATA)" --out docs/benchmarks/retrieval.md $(ARGS)
	@echo "Vectors, and a store of a million passages"
	@$(BIN)/python benchmarks/vectors.py --data "$(DATA)" --out docs/benchmarks/vectors.md
	@$(BIN)/python benchmarks/scale.py --data "$(DATA)" --out docs/benchmarks/scale.md
	@echo "Answers over thousands of paragraphs"
	@$(BIN)/python benchmarks/end_to_end.py --data "$(DATA)" --out docs/benchmarks/end_to_end.md
	@echo "Questions in one language, paragraphs in the other"
	@$(BIN)/python benchmarks/across_languages.py --data "$(DATA)" --out docs/benchmarks/across_languages.md
	@echo "Knowledge graphs"
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/graphs.py --data "$(DATA)" --out docs/benchmarks/graphs.md
	@echo "A store under many processes, and killed"
	@$(BIN)/python benchmarks/endurance.py --out docs/benchmarks/endurance.md

# A part of the questions, without touching the cards: make bench-model ARGS="--most 50 --paragraphs 500"
bench-model: $(TOOLS) ## Measure the model that ships, and write the tables of its cards (DATA=folder)
	@test -d "$(DATA)" || { echo "No folder '$(DATA)': make bench-model DATA=folder of open data sets" >&2; exit 2; }
	@$(BIN)/python recipes/shipped_model/measure.py "$(DATA)" src/consilience/weights/compact $(or $(ARGS),--cards)

format: $(TOOLS) ## Put the code into its one format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: ## Pin what is installed in .venv into the lock files
	@$(BIN)/python tools/lock.py

# What is drawn is what the program prints over the example corpus, nothing else.
pictures: $(RUNTIME) ## Draw the terminal pictures of the documentation anew
	@rm -rf build/pictures && mkdir -p build docs/images
	@$(BIN)/consilience demo --keep build/pictures --json >/dev/null
	@$(MAKE) --no-print-directory picture PICTURE=en ASKED="$(ASKED_EN)"
	@$(MAKE) --no-print-directory picture PICTURE=zh ASKED="$(ASKED_ZH)"

picture:
	@FORCE_COLOR=1 COLUMNS=96 $(BIN)/consilience ask "$(ASKED)" --lang $(PICTURE) --store build/pictures \
	  | $(BIN)/python tools/terminal_picture.py docs/images/demo-$(PICTURE).svg --command 'consilience ask "$(ASKED)"'
	@echo "docs/images/demo-$(PICTURE).svg"

start-model: $(RUNTIME) ## Install the model that the shipped one was started from (to train it again)
	@$(PIP) --no-deps -r requirements-train.lock

clean: ## Remove what the tools left behind; keeps .venv, stores and training runs
	@rm -rf build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find src tests tools examples recipes benchmarks -name __pycache__ -prune -exec rm -rf {} +

# Debian keeps ensurepip in a package of its own. Where it is missing, the pip that is there
# installs another into the environment.
$(BIN)/python:
	@echo "Making the virtual environment $(VENV)"
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
	  || { $(PYTHON) -m venv --clear --without-pip $(VENV) \
	       && $(PYTHON) -m pip --python $@ install -qq pip; }

# torch comes first and with its own dependencies, which differ from build to build; everything
# else is in the lock and asks for nothing beyond it.
$(RUNTIME): $(LOCKS) pyproject.toml | $(BIN)/python
	@echo "Installing torch"
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -c requirements.lock "$$(grep '^torch==' requirements.lock)"
	@echo "Installing the other packages that are locked"
	@$(PIP) --no-deps $(LOCKS:%=-r %)
	@echo "Installing consilience from this folder"
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(TOOLS): requirements-dev.lock $(RUNTIME)
	@echo "Installing the packages of requirements-dev.lock"
	@$(PIP) --no-deps -r requirements-dev.lock
	@touch $@
