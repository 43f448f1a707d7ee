# `make demo` and `make test` need Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV   ?= .venv
NB     ?=
# Options of pytest: two processes share the tests
PYTEST ?= -n 2 --dist loadgroup
# Where torch comes from, if not from the usual place: make test TORCH="--index-url …", as the selector on pytorch.org shows it
TORCH  ?=

PY  := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo test docs venv lab readme export nbs check wheel wiki-en clean
help:
	@echo 'make demo | test | docs | venv | lab | readme | export | nbs [NB=name] | check | wheel | wiki-en | clean'

demo: $(VENV)/.installed
	$(VENV)/bin/ulmfit demo

test: $(VENV)/.installed-dev
	$(PY) -m pytest $(PYTEST)

venv: $(VENV)/.installed-dev

# Jupyter, with the notebooks
lab: $(VENV)/.installed-dev
	$(PIP) jupyterlab
	$(VENV)/bin/jupyter lab nbs $(LAB)

# torch goes first, at the pinned version, so that nothing after it asks for another build
$(VENV)/.torch: constraints.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH) torch torchvision
	$(PIP) setuptools wheel
	@touch $@

# without build isolation: a build of its own would fetch setuptools anew
$(VENV)/.installed: $(VENV)/.torch settings.ini setup.py pyproject.toml
	$(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --no-build-isolation --editable '.[dev,docs]'
	@touch $@

# the site, in docs/_build/html
docs: $(VENV)/.installed-docs
	$(PY) docs/build.py $(DOCS)

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) --no-build-isolation --editable '.[docs]'
	@touch $@

readme: $(VENV)/.installed-dev
	$(PY) tools/readme.py

export: $(VENV)/.installed-dev
	$(VENV)/bin/nbdev-export
	$(PY) tools/readme.py

nbs: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(VENV)/bin/nbdev-test $(if $(NB),nbs/$(NB).ipynb) --save --n-workers 2
	$(VENV)/bin/nbdev-clean $(if $(NB),--fname nbs/$(NB).ipynb)
	$(PY) tools/readme.py

check: $(VENV)/.installed-dev
	$(VENV)/bin/nbdev-clean
	$(VENV)/bin/chkstyle nbs ulmfit_nb
	$(PY) tools/check.py

wheel: $(VENV)/.installed-dev
	$(PY) -m build --no-isolation --outdir dist

# ulmfit-wiki-en, a package that holds nothing but pretrained models: the folders wiki-en-fwd and wiki-en-bwd in MODELS
MODELS ?= models
wiki-en: $(VENV)/.installed-dev
	$(PY) tools/wiki_en.py package $(MODELS) --out dist

clean:
	rm -rf build dist *.egg-info _proc _docs docs/_build .pytest_cache .hypothesis
	find nbs tests tools experiments ulmfit_nb -name __pycache__ -type d -prune -exec rm -rf {} +
