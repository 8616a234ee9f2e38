# Sourced by the other scripts: an environment with ilm_jax in it, made on first use.
# $1: extras to install, e.g. "test". Uses the active virtual environment, else .venv.
set -euo pipefail
# Compiled modules are kept whatever the machine's habit is (images for containers often set it):
# without them every command compiles the sources of all that it imports anew, for some seconds.
unset PYTHONDONTWRITEBYTECODE
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
EXTRAS="${1:-}"

if [ -z "${VIRTUAL_ENV:-}" ]; then
  PYTHON="${PYTHON:-python3}"
  if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "setup: error: ilm_jax needs Python 3.11 or newer, $PYTHON is $("$PYTHON" -V 2>&1);" \
      "set PYTHON=/path/to/python3.11" >&2
    exit 2
  fi
  if [ ! -x "$ROOT/.venv/bin/python" ]; then
    echo "setup: making $ROOT/.venv"
    "$PYTHON" -m venv --clear "$ROOT/.venv"
    # Installs in a third of pip's time; where it cannot be had, pip goes on alone.
    "$ROOT/.venv/bin/python" -m pip install --quiet --disable-pip-version-check uv 2>/dev/null || true
  fi
  # shellcheck disable=SC1091
  source "$ROOT/.venv/bin/activate"
fi

# Reinstall only when setup.py changed or another extra is wanted.
STAMP="$VIRTUAL_ENV/.ilm_jax-${EXTRAS:-base}"
WANT="$(cat "$ROOT/setup.py" <(echo "$ROOT") | sha256sum)"
if [ "$(cat "$STAMP" 2>/dev/null)" != "$WANT" ]; then
  echo "setup: installing ilm_jax into $VIRTUAL_ENV (a few minutes the first time)"
  python "$ROOT/launch/install.py" -e "$ROOT${EXTRAS:+[$EXTRAS]}"
  echo "$WANT" > "$STAMP"
fi
