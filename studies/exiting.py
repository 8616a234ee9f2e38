"""How a script of this folder ends: what was wrong is one line, and the exit code says so."""

import pathlib
import sys
from collections.abc import Callable

from ilm_jax.errors import UserError
from ilm_jax.files import trouble


def exit_code(main: Callable[[], int | None], name: str = "") -> int:
    """What `main` returns, 0 for None; 2 behind a line that says what was wrong, 130 for Ctrl-C.

    Args:
      main: does the work.
      name: stands in front of the line; "": the script's.
    """
    name = name or pathlib.Path(sys.argv[0]).name
    try:
        return main() or 0
    except (UserError, OSError) as error:
        told = trouble(error) or " ".join(str(error).split())
        print(f"{name}: error: {told}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
