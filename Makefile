# Two commands on a fresh machine: `make demo` fits the bundled photo, `make test` runs all checks.
# Both set up .venv first, once, and again where pyproject.toml or constraints.txt has changed.
#
# primitives/ and cli/ lie beside ngp_warp/ here and inside it once installed, so three tools need
# to be told where `ngp_warp.cli` is:
# - `ngp`: the editable install. In its default mode it maps packages to folders while importing,
#   so that a new file is seen at once; `editable_mode=strict` would link file by file, and every
#   new file would need another install.
# - pytest and `python -m ...` at the root: ngp_warp/__init__.py adds the checkout to its __path__.
# - pyright reads neither of the two: .venv/mapped holds ngp_warp/__init__.py, cli and primitives as
#   links (pyproject.toml, extraPaths). Everything else of ngp_warp it finds in the checkout.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MAPPED := $(VENV)/mapped/ngp_warp
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
INPUTS := pyproject.toml constraints.txt

.PHONY: demo test setup setup-dev clean

demo: setup
	@out=outputs/demo; \
	if [ -e "$$out" ]; then out="outputs/demo-$$(date +%Y%m%d-%H%M%S)"; fi; \
	$(BIN)/ngp fit-image examples/seeding.jpg --seconds 60 --out "$$out" && \
	echo "The pictures are in $$out/renders"

test: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest

setup: $(VENV)/.installed

setup-dev: $(VENV)/.installed-dev

$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "$(PYTHON) is missing: install Python 3.10 or newer, or name one with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "$(PYTHON) is older than 3.10: name a newer one with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make environments: on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created $(INPUTS)
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.created $(INPUTS) | $(MAPPED)
	$(PIP) -e '.[dev]'
	@touch $(VENV)/.installed $@

$(MAPPED):
	@mkdir -p $@
	@ln -sfn ../../../ngp_warp/__init__.py $@/__init__.py
	@ln -sfn ../../../cli $@/cli
	@ln -sfn ../../../primitives $@/primitives

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
