"""The values of a record's fields: a word, a number, a time, the texts behind a path. Strict."""

import datetime
import json
import math
import pathlib
import re
import urllib.parse

from ilm_jax.data.formats import raw_lines
from ilm_jax.data.formats.columns import MISSING, is_word
from ilm_jax.data.formats.record_forms import TimeForm
from ilm_jax.data.formats.record_lines import Record

_DIGITS = re.compile(r"\d{1,17}", re.ASCII)
_NUMBER = re.compile(r"\d{1,3}(?:\.\d{1,17})?", re.ASCII)
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?: (\d\d):(\d\d):(\d\d))?", re.ASCII)
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_CTIME = re.compile(
    rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) ({'|'.join(_MONTHS)}) (\d\d) (\d\d):(\d\d):(\d\d) "
    r"([+-]\d\d)(\d\d) (\d{4})",
    re.ASCII,
)
# Year 5138 in seconds is 1973 in milliseconds: no review is of either.
_TURN = 10**11
_SPELLINGS = {
    "seconds": "seconds since 1970",
    "milliseconds": "milliseconds since 1970",
    "date": "such as 2018-07-07 or 2018-07-07 22:09:11",
    "ctime": "such as Tue Nov 17 11:37:35 -0800 2009",
}


def word(path: pathlib.Path, line: int, record: Record, name: str) -> str:
    """An id: text without white space, or a whole number.

    Raises:
      UserError: with file and line, where it is missing or of another form.
    """
    value = record.get(name)
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not is_word(text):
        raw_lines.fail(path, line, f"{name} is {str(value)[:40]!r}; keys: {list(record)[:12]}")
    return text


def display_name(path: pathlib.Path, line: int, record: Record, name: str) -> str:
    """A name that a person chose, as one word: "a b" is "a%20b"; "" where it is empty.

    No two names become one.
    """
    value = record.get(name)
    if not isinstance(value, str):
        raw_lines.fail(path, line, f"{name} is {str(value)[:40]!r}; keys: {list(record)[:12]}")
    return "".join(
        urllib.parse.quote(letter, safe="", errors="surrogatepass")
        if letter == "%" or letter.isspace() or not letter.isprintable()
        else letter
        for letter in value
    )


def rating(path: pathlib.Path, line: int, record: Record, name: str, highest: float) -> float:
    """A number from 0 to the highest.

    Raises:
      UserError: with file and line, for anything else.
    """
    value = record.get(name)
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value) if abs(value) < 1e9 else math.nan
    elif isinstance(value, str) and _NUMBER.fullmatch(value):
        number = float(value)
    if not 0 <= number <= highest:
        raw_lines.fail(path, line, f"{name} {str(value)[:40]!r} is no number from 0 to {highest:g}")
    return number


def time(path: pathlib.Path, line: int, record: Record, name: str, form: TimeForm) -> int:
    """A time in the form's unit, seconds where it is written as a date.

    Raises:
      UserError: with file and line, for anything else, and for a time before 1970.
    """
    value = record.get(name)
    whole = isinstance(value, str | int) and not isinstance(value, bool)
    try:
        found = _read_time(str(value), form) if whole else -1
    except ValueError:  # the 31st of June
        found = -1
    if found < 0:
        spelling = _SPELLINGS[form]
        raw_lines.fail(path, line, f"{name} {str(value)[:40]!r} is no time, {spelling}")
    return found


def _read_time(text: str, form: TimeForm) -> int:
    if form in ("seconds", "milliseconds"):
        number = int(text) if _DIGITS.fullmatch(text) else -1
        return number if (number >= _TURN) == (form == "milliseconds") else -1
    zone: datetime.tzinfo = datetime.UTC
    if form == "date":
        match = _DATE.fullmatch(text)
        numbers = [int(part or 0) for part in match.groups()] if match else []
    elif match := _CTIME.fullmatch(text):
        month, day, hour, minute, second, ahead, more, year = match.groups()
        numbers = [int(n) for n in (year, _MONTHS.index(month) + 1, day, hour, minute, second)]
        zone = _zone(ahead, more)
    else:
        numbers = []
    if not numbers:
        return -1
    years, months, days, hours, minutes, seconds = numbers
    found = datetime.datetime(years, months, days, hours, minutes, seconds, tzinfo=zone)
    return int(found.timestamp())


def _zone(hours: str, minutes: str) -> datetime.timezone:
    """The zone of "-08", "00"; ValueError for one that no clock has."""
    ahead = datetime.timedelta(hours=int(hours[1:]), minutes=int(minutes))
    return datetime.timezone(-ahead if hours[0] == "-" else ahead)


def texts(path: pathlib.Path, line: int, record: Record, field: str) -> list[str]:
    """The texts behind a path, as written; [] where nothing is there.

    Raises:
      UserError: with file and line, for what is neither text, number, object nor a list of them;
        for half a character.
    """
    found: list[str] = []
    _gather(path, line, field, record, field.split("."), found)
    return [_whole(path, line, field, text) for text in found]


def _gather(
    path: pathlib.Path, line: int, field: str, value: object, keys: list[str], found: list[str]
) -> None:
    if isinstance(value, list):
        for part in value:
            _gather(path, line, field, part, keys, found)
    elif keys and isinstance(value, str) and isinstance(inner := _unpacked(value), dict):
        _gather(path, line, field, inner, keys, found)
    elif keys and isinstance(value, dict):
        _gather(path, line, field, value.get(keys[0]), keys[1:], found)
    elif value is None or (isinstance(value, str) and value.strip() in ("", *MISSING)):
        return
    elif not keys and isinstance(value, str):
        found.append(value)
    elif not keys and isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):  # of any length are integers
            raw_lines.fail(path, line, f"{field} is {value}")
        found.append(str(value))
    else:
        what = "an object" if keys else "a text or a number"
        raw_lines.fail(path, line, f"{field} holds {str(value)[:40]!r} where {what} should stand")


def _unpacked(text: str) -> object:
    """An object that was written as a text of JSON, which tables with plain columns do."""
    try:
        return json.loads(text) if text.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        return None


def _whole(path: pathlib.Path, line: int, field: str, text: str) -> str:
    """The text with surrogate pairs as characters, as a narrow build of Python 2 wrote them."""
    if "\0" in text:
        raw_lines.fail(path, line, f"{field} holds a NUL character, which no text holds")
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raw_lines.fail(path, line, f"{field} {text[:40]!r} holds half a character")
