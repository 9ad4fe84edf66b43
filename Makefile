# One line each; .ci/run calls the same.
.PHONY: install check test contract slow fuzz bench pins all
install: ; uv sync
check: ; uv run ruff check . && uv run ruff format --check . && uv run codespell && uv run mypy
test: ; uv run pytest
contract: ; uv run pytest tests/contract -m "not gpu and not network"
slow: ; uv run pytest -m "slow and not network and not gpu"
fuzz: ; uv run python tests/fuzz/run.py --cases 20000
bench: ; uv run python benchmarks/cost.py --rounds 5 && uv run python benchmarks/cost.py --rounds 5 --same-graph
pins: ; uv run python scripts/pins.py
all: check test
