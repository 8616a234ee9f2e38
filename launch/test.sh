#!/usr/bin/env bash
# Sets up as quickstart.sh does, then runs the linters and the tests. Further words go to pytest.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" test
cd "$ROOT"
ruff check .
ruff format --check .
mypy ilm_jax tasks launch
exec python -m pytest "$@"
