"""JSON lines that are written as they are found, and gone on with after an interruption."""

import contextlib
import json
import os
import pathlib
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ilm_jax.data.formats import raw_lines
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write
from ilm_jax.locks import one_writer

Row = Mapping[str, Any]
V = TypeVar("V")


class AnswerFile(Generic[V]):
    """A file of answers, one JSON object per line, appended to.

    Beside it, `PATH.settings.json` says how they came about: a file never holds answers of two
    models, or of two ways of decoding.

    Attributes:
      path: the file.
      done: what it held when it was opened: a value for the key of every row.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        entry: Callable[[Row], tuple[Hashable, V]],
        settings: Mapping[str, Any],
        what: str = "ilm infer",
    ) -> None:
        """Opens the file; a last line without its end is taken off, as one that was cut short.

        Args:
          path: the file; made if absent.
          entry: (what tells a row from the others, what to remember of it).
          settings: JSON-able; must be those that the file was begun with.
          what: who writes, for the message to another process that would.

        Raises:
          UserError: if the settings differ, or with file and line for a line that is no answer.
        """
        self.path = pathlib.Path(path)
        self._settings = json.loads(json.dumps(dict(settings)))
        self.done: dict[Hashable, V] = {}
        with contextlib.ExitStack() as held:
            held.enter_context(one_writer(self.path, what, beside=True))
            self._open(entry)
            held.callback(self._stream.close)
            self._held = held.pop_all()

    def _open(self, entry: Callable[[Row], tuple[Hashable, V]]) -> None:
        self._check_settings(self._settings)
        whole = self._cut() if self.path.exists() else 0
        if whole:
            for number, line in raw_lines.lines(self.path):
                try:
                    key, value = entry(json.loads(line))
                    self.done[key] = value
                except (ValueError, KeyError, TypeError):
                    raw_lines.fail(
                        self.path,
                        number,
                        "no answer of ours",
                        "name another output, or mend the line",
                    )
        self._stream = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - closed by __exit__

    def write(self, rows: Iterable[Row]) -> None:
        """Appends rows; they are in the file when this returns."""
        for row in rows:
            # JSON has no NaN: a score that is none must not come so far.
            self._stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        self._stream.flush()

    def __enter__(self) -> Self:
        """For `with`."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the file, and lets others write."""
        self._held.close()

    def _cut(self) -> int:
        """Takes off what stands behind the last line end; returns the bytes that are left."""
        with open(self.path, "r+b") as stream:
            size = end = stream.seek(0, os.SEEK_END)
            while end:
                start = max(0, end - 65536)
                stream.seek(start)
                at = stream.read(end - start).rfind(b"\n")
                end = start
                if at >= 0:
                    end = start + at + 1
                    break
            if end < size:
                stream.truncate(end)
        return end

    def _check_settings(self, settings: dict[str, Any]) -> None:
        file = self.path.with_name(self.path.name + ".settings.json")
        if self.path.exists() and self.path.stat().st_size:
            try:
                before = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise UserError(
                    f"{self.path} is not empty, and {file.name} does not say how it came about: "
                    "name another output"
                ) from error
            other = [n for n in {**before, **settings} if before.get(n) != settings.get(n)]
            if other:
                old, new = before.get(other[0], "nothing"), settings.get(other[0], "nothing")
                raise UserError(
                    f"{self.path} was begun with {other[0]}={old!r}, and now it is {new!r}: name "
                    "another output, or ask as before"
                )
        with atomic_write(file) as stream:
            stream.write(json.dumps(settings, indent=1) + "\n")
