# `make build`: a virtual environment, everything installed, the specs built for what this machine has.
# `make test`: the same, then every test, and the numeric ones once more with each lesser instruction set.
# `make quick`: the everyday loop: linters, types, and the tests that build nothing but specs/.
# `make check`: linters, types, format, and whether generated/ is what the specs render to.
# `make prove`: what docs/evidence.md says was proven on the CPU, in about half an hour; records in RECORDS.
# `make docs`: the documentation as a site, in site/.
# `make walks`: the walks of docs/walks, word for word, each in an empty folder, with their times.
# `make pictures`: the pictures of pages in docs/pictures, taken in Chromium.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A link is the environment of another checkout: this one uses it, and installs nothing into it, since the package that is
# installed there would then be this checkout's.
LINKED := $(shell test -L $(VENV) && echo linked)
ifdef LINKED
export PYTHONPATH := $(CURDIR)$(PYTHONPATH:%=:%)
ifeq ($(MAKELEVEL),0)
$(info $(VENV) is a link to another checkout's environment: nothing is installed into it)
endif
endif
# Where AVX2 is the best there is, every test has run with it already.
LESSER = $(shell grep -qs avx512f /proc/cpuinfo && echo avx2)
# The first seed of changed specs, random programs and random models, and where `make prove` writes what it finds.
SEED ?= 0
RECORDS ?= build/prove
# The parts of `make prove`, each of which is a target: `make prove-specs`.
PROVED = samples programs named sanitizers inputs models faults specs
# Collecting all tests takes pytest five seconds.
NUMERICS = $(shell grep -rl "mark\.numerics" tests --include=test_*.py)

# Every test of the command line starts Python: without bytecode it compiles all modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: build test quick check prove $(PROVED:%=prove-%) docs walks pictures format clean

build: $(VENV)/installed
	$(BIN)/fusegen build specs --portable

# Three workers of two threads each share the cores, since a worker waits for compilers and for packages that another
# builds. A thread of OpenMP that waits must not spin. The instruction sets then run side by side, a process each:
# starting workers for them would take a third of the time.
test: export OMP_WAIT_POLICY = passive
test: build
	$(BIN)/python -m pytest -n 3 --dist loadscope
	printf '%s\n' portable $(LESSER) | xargs -P 2 -I ISA env FUSEGEN_CPU=ISA \
	  $(BIN)/python -m pytest -q -p no:cacheprovider -m numerics $(NUMERICS)

quick: export OMP_WAIT_POLICY = passive
quick: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/fusegen build specs --portable
	$(BIN)/python -m pytest -q -n 2 --dist loadscope -m "not slow and not gpu"

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror templates/include/fusegen/*.* templates/include/fusegen/forms/*
	$(BIN)/fusegen build specs --check

# Two parts at a time, a core each, the longest first. Each part runs, whatever the others found. None takes ten minutes
# of a quiet core: one that hangs ends as an error.
AT_MOST = --at-most 3600
PROVE = OMP_NUM_THREADS=1 MAX_JOBS=1 OMP_WAIT_POLICY=passive PYTHONPATH=tests$(PYTHONPATH:%=:%) $(BIN)/python
prove: $(VENV)/installed
	$(MAKE) --no-print-directory --keep-going --jobs 2 $(PROVED:%=prove-%)

$(PROVED:%=prove-%): $(VENV)/installed
prove-inputs:
	$(PROVE) -m prove inputs $(AT_MOST) --record $(RECORDS)/inputs_cpu.json
prove-specs:
	$(PROVE) -m prove specs $(AT_MOST) --seed $(SEED) --record $(RECORDS)/specs.json
prove-samples:
	$(PROVE) -m prove samples $(AT_MOST) --record $(RECORDS)/samples.json
prove-programs:
	$(PROVE) tests/run_random_programs.py $(AT_MOST) --seed $(SEED) --count 200 --together 20 --quick \
	  --record $(RECORDS)/programs_$(SEED).json
prove-named:
	$(PROVE) tests/run_random_programs.py $(AT_MOST) --seed $(SEED) --count 40 --together 20 --quick --named \
	  --record $(RECORDS)/named_$(SEED).json
prove-models:
	$(PROVE) -m prove models $(AT_MOST) --seed $(SEED) --count 48 --record $(RECORDS)/models_$(SEED).json
prove-faults:
	$(PROVE) -m prove faults $(AT_MOST) --seed $(SEED) --count 9 --record $(RECORDS)/faults.json
prove-sanitizers:
	$(PROVE) -m prove sanitizers $(AT_MOST) --seed $(SEED) --count 6 --record $(RECORDS)/sanitizers.json

docs: export NO_MKDOCS_2_WARNING = 1
docs: $(VENV)/installed-docs
	$(BIN)/mkdocs build --strict

walks: export PATH := $(abspath $(BIN)):$(PATH)
walks: export PYTHONPATH := tests$(PYTHONPATH:%=:%)
walks: $(VENV)/installed
	$(BIN)/python tests/take_walks.py

pictures: export PYTHONPATH := tests$(PYTHONPATH:%=:%)
pictures: $(VENV)/installed
	$(BIN)/python tests/take_screenshots.py

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i templates/include/fusegen/*.* templates/include/fusegen/forms/*

ifdef LINKED
$(VENV)/installed $(VENV)/installed-docs:
	@echo "run make in that checkout first: there is no $@" >&2; exit 1
else
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch numpy
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@
endif

clean:
	rm -rf $(VENV) site generated/.build generated/*/*.so
