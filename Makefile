# What can be done here; `make help` lists it. Everything installs what it needs first.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

bin := .venv/bin
quick_tests := tests/unit tests/contract tests/simulation tests/meta
# Three files of tests at a time, in their order: those with virtual machines come first, which are slow
# and wait half of the time, so that three keep two processors busy.
side_by_side := -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup:  ## make .venv with volagent and its tools at the versions of requirements.lock
	@tests/setup/venv.sh

.PHONY: system-packages
system-packages:  ## install the Debian packages that demo and tests want (as root; else say which)
	@tests/setup/packages.sh tests

.PHONY: moto
moto: setup
	@tests/setup/moto.sh

.PHONY: demo-packages
demo-packages:
	@tests/setup/packages.sh demo

.PHONY: demo
demo: setup demo-packages  ## show a pod's volumes from declaration to removal, on a throw-away state
	@$(bin)/python config/examples/demo/run.py

.PHONY: try-three
try-three: setup  ## run three servers over three members of etcd here, as root, until Ctrl-C
	@tests/setup/packages.sh etcd-server
	@exec $(bin)/python config/examples/three/run.py $(ARGS)

.PHONY: run
run: setup  ## run the daemon in the foreground; ARGS="..." are passed on
	@exec $(bin)/volagent run $(ARGS)

.PHONY: test
test: setup system-packages moto  ## run every test (as root; without, those that need root are skipped)
	@$(bin)/pytest $(side_by_side) $(ARGS)

.PHONY: torture
torture: setup system-packages  ## fail VMs while they write, 20 seeds of every failure (as root, hours)
	@VOLAGENT_TORTURE_SEEDS=20 $(bin)/pytest -n 3 \
	  tests/cluster/test_writers.py tests/cluster/test_writers_etcd.py $(ARGS)

box := vagrant/.cache/volagent.box

.PHONY: vagrant
vagrant: vagrant-possible deb $(box)  ## run the cluster scenarios on Vagrant's machines, from the package (as root)
	@VOLAGENT_LAB=vagrant $(bin)/pytest tests/cluster $(ARGS)

.PHONY: vagrant-possible
vagrant-possible: setup
	@$(bin)/python -m tests.cluster.lab.requirements

.PHONY: vagrant-packages
vagrant-packages:
	@tests/setup/packages.sh vagrant

$(box): vagrant/build-box.sh | vagrant-packages
	@vagrant/build-box.sh $@

.PHONY: check
check: lint  ## lint, types, import contracts and the quick tests; what to run before a commit
	@$(bin)/pytest -q $(side_by_side) $(wildcard $(quick_tests)) $(ARGS)

.PHONY: lint
lint: setup
	@$(bin)/ruff check .
	@$(bin)/ruff format --check --quiet . || { $(bin)/ruff format --check .; exit 1; }
	@$(bin)/mypy --package volagent --package tests.cluster.lab --package package
	@$(bin)/lint-imports --no-logo

.PHONY: format
format: setup  ## format the code, mend what ruff can mend
	@$(bin)/ruff check --quiet --fix . || true
	@$(bin)/ruff format .

.PHONY: bench
bench: setup demo-packages  ## measure: one JSON line per figure
	@$(bin)/python -m bench $(ARGS)

.PHONY: deb
deb: setup  ## build dist/volagent_VERSION_ARCH.deb (by package/deb.py; no root needed)
	@$(bin)/python -m package.deb $(ARGS)

.PHONY: wheel
wheel: setup  ## build dist/volagent-VERSION-py3-none-any.whl
	@rm -rf build
	@SOURCE_DATE_EPOCH=$$($(bin)/python -c 'from package.deb import *; print(source_date_epoch())') \
	  $(bin)/pip --disable-pip-version-check wheel --quiet \
	    --no-deps --no-index --no-build-isolation --wheel-dir dist .
	@rm -rf build
	@ls dist/volagent-*.whl

.PHONY: lock
lock: setup  ## write the installed versions to requirements.lock
	@{ sed -n '/^#/p' requirements.lock; $(bin)/pip freeze --all --exclude pip --exclude-editable; } >.venv/requirements.new
	@mv .venv/requirements.new requirements.lock

.PHONY: clean
clean:  ## remove what building and testing left in the checkout, .venv included
	rm -rf .venv build dist ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
