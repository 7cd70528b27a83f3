# What a change must pass, step by step; `.ci/run` does it in a fresh environment.
.PHONY: install format lint docs test check

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
