# What a change must pass, step by step; `.ci/run` does it in a fresh environment.
.PHONY: install format lint docs test check long

install:
	pip install '.[test]'

format:
	ruff check --fix .
	ruff format .

# mypy and import-linter run in an empty folder, so that they see the installed package, with envs and agents inside it.
lint:
	ruff check .
	ruff format --check .
	elsewhere=$$(mktemp -d) && cp pyproject.toml "$$elsewhere" && cd "$$elsewhere" && mypy -p rlprune && lint-imports

docs:
	mkdocs build --strict

test:
	pytest

check: lint docs test

# What takes hours: every network, a hundred kills, a hundred thousand damaged files. Writes docs/.
long:
	python scripts/checks/networks.py
	python scripts/checks/runtime_networks.py
	python scripts/checks/faults.py
	python scripts/checks/hostile.py
	python scripts/checks/fuzz.py --inputs 100000
