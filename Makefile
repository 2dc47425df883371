# make setup   what it takes to run .venv/bin/argosy
# make demo    the main job from an empty folder, in .demo/
# make test    linter, types and every test that this machine can run
# make faults  every step of every verb goes wrong once, not a sample of them; an hour or more
# make fuzz    the parsers of what comes from outside, fed with what breaks them
# make bench   the figures: ratios to peers and to the floor, taken side by side
# make clean   remove .venv, .tools, .fuzz and .demo

.PHONY: setup demo test lint faults fuzz bench clean lock

setup:
	@scripts/setup run

demo: setup
	@.venv/bin/python -m demo

test: lint
	@scripts/setup test
	.venv/bin/python -m pytest -q

lint: setup
	@scripts/setup tools
	.tools/bin/ruff check -q .
	.tools/bin/ruff format -q --check .
	.tools/bin/mypy --python-executable .venv/bin/python

faults: setup
	@scripts/setup test
	.venv/bin/python -m pytest -q tests/faults --whole -o faulthandler_timeout=0

fuzz:
	@scripts/setup fuzz
	PYTHONPATH=src .fuzz/bin/python -m tests.fuzz $(FUZZ)

bench: setup
	@scripts/setup test
	.venv/bin/python -m tests.benchmarks

clean:
	@scripts/clean

lock:
	.tools/bin/python -m pip install --quiet uv
	.tools/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade \
		pyproject.toml --extra registry requirements/test.in -o requirements/argosy.txt
	.tools/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade \
		requirements/tools.in -o requirements/tools.txt
	.tools/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade \
		pyproject.toml requirements/fuzz.in -o requirements/fuzz.txt
