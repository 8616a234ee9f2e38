#!/usr/bin/env bash
# From nothing to a table: sets up, then runs every stage and every baseline on the toy world.
#   bash launch/quickstart.sh [--dataset toy] [--data_dir DIR] [--model_dir DIR] [--seed 0]
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec python "$ROOT/launch/reproduce.py" quickstart "$@"
