"""Which encoding a raw text file is in: found in its bytes, over the whole file.

A byte order mark decides. Without one, what is UTF-8 throughout is UTF-8: text in another encoding
is so by chance only where it is nearly all ASCII. What is not may be Western European text in one
byte a character, if the form of the file allows it; anything else is refused with file and line.
"""

import codecs
import dataclasses
import os
import pathlib
import re

from ilm_jax.data.formats import notes
from ilm_jax.data.formats.failing import fail

# What a form of file may be: UTF-8 alone (JSON); that or Western European, which is then said;
# Western European as published (the older MovieLens), where UTF-8 is said.
UTF_8, WESTERN, LATIN_1 = "utf-8", "western", "latin-1"
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OTHERS = {
    b"\x1f\x8b": "a gzip file",
    b"PK\x03\x04": "a zip archive (or a spreadsheet)",
    b"PAR1": "a parquet file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
}
_HIGH, _RUNS = re.compile(rb"[\x80-\xff]"), re.compile(rb"[\x80-\xff]{3,}")
# No characters of Windows-1252, which is Latin-1 with signs such as curly quotes at 80 to 9f.
_UNUSED = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
_CHUNK = 1 << 20


@dataclasses.dataclass
class _Lines:
    """Lines that are not ASCII: the first of each kind, and how many bytes are high."""

    utf_8: int = 0
    other: int = 0
    sample: bytes = b""
    place: int = 0
    unused: int = 0
    high: int = 0
    in_runs: int = 0


def decide(path: str | os.PathLike, form: str = UTF_8) -> str:
    """The codec of a file, noted in one line where it is not the usual one of its form.

    Args:
      path: the file.
      form: UTF_8, WESTERN, LATIN_1, or a codec that the user names and that is taken at its word.

    Raises:
      UserError: if the file is no text; if it is in no encoding of its form, or in two.
    """
    path = pathlib.Path(path)
    with open(path, "rb") as stream:
        start = stream.read(8)
    marked = next((codec for mark, codec in _MARKS if start.startswith(mark)), "")
    if marked:
        notes.say(f"{path.name}: read as {marked.upper()}, by its byte order mark")
        return marked
    for magic, what in _OTHERS.items():
        if start.startswith(magic):
            fail(path, 1, f"{what}, not text", "unpack or export it, and name the file by its form")
    if form not in (WESTERN, LATIN_1):
        return form
    found = _survey(path)
    if found.other:
        _check_western(path, found)
        if form == WESTERN:
            sample = found.sample.decode("cp1252", "replace").strip()[:40]
            notes.say(
                f"{path.name}: not UTF-8, so read as Windows-1252 (line {found.other}: {sample!r})"
            )
        return "cp1252"
    if found.utf_8 and form == LATIN_1:
        notes.say(f"{path.name}: read as UTF-8; as published it is in Latin-1")
    return "utf-8"


def _survey(path: pathlib.Path) -> _Lines:
    found = _Lines()
    with open(path, "rb") as stream:
        while (chunk := stream.read(_CHUNK)) and chunk.isascii():
            pass
        if not chunk:
            return found
        stream.seek(0)
        for number, raw in enumerate(stream, 1):
            if raw.isascii():
                continue
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError as error:
                if not found.other:
                    found.other, found.sample, found.place = number, raw, error.start + 1
            else:
                found.utf_8 = found.utf_8 or number
            if not found.unused and _UNUSED.search(raw):
                found.unused = number
            found.high += len(_HIGH.findall(raw))
            found.in_runs += sum(map(len, _RUNS.findall(raw)))
    return found


def _check_western(path: pathlib.Path, found: _Lines) -> None:
    """Raises UserError unless the file can be in Windows-1252 throughout."""
    remedy = 'save the whole file as UTF-8 (of a custom dataset, or name it: Columns.encoding = "…"'
    remedy += " in columns.gin)"
    if found.utf_8:
        fail(
            path,
            found.other,
            f"not UTF-8 at byte {found.place} of the line, while line "
            f"{found.utf_8} is: two encodings in one file",
            remedy,
        )
    if found.unused:
        fail(path, found.unused, "bytes that are neither UTF-8 nor Windows-1252 (Latin-1)", remedy)
    # In Western European text such letters stand alone between others; where most of them stand in
    # rows, it is another script.
    if 2 * found.in_runs > found.high:
        fail(
            path,
            found.other,
            "not UTF-8, and by its runs of letters beyond ASCII not Western European either",
            remedy,
        )


def check_codec(name: str) -> bool:
    """Whether a name is that of an encoding of text."""
    try:
        return codecs.lookup(name)._is_text_encoding  # noqa: SLF001 - nothing public says so
    except LookupError:
        return False


def is_wide(codec: str) -> bool:
    """Whether a line end takes more than one byte."""
    return codecs.lookup(codec).name.startswith(("utf-16", "utf-32"))
