"""Errors of readers of raw files: file, line, what is wrong, what to do."""

import os
from typing import NoReturn

from ilm_jax.errors import UserError

LONGEST = 400


def fail(path: str | os.PathLike, line: int, what: str, remedy: str = "") -> NoReturn:
    """Raises the UserError `path:line: what; remedy`; what a huge line brings in is cut."""
    what = what if len(what) <= LONGEST else f"{what[:LONGEST]}…"
    remedy = remedy or "mend the line, or take the file from its publisher again"
    raise UserError(f"{path}:{line}: {what}; {remedy}")
