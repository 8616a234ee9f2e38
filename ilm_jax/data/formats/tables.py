"""Tables with named columns: CSV, tab-separated, RecBole's, JSON lines, parquet.

What sets cells apart is read from the header, and whether a tab-separated file quotes its cells
from the whole file; what is not the usual of the form is noted in one line.
"""

import csv
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from ilm_jax.data.formats import encodings, notes
from ilm_jax.data.formats.json_lines import json_rows
from ilm_jax.data.formats.raw_lines import check_width, fail, lines
from ilm_jax.errors import UserError

if TYPE_CHECKING:
    import pyarrow

SEQUENCE_KINDS = ("token_seq", "float_seq")
_KIND = re.compile(r"(.*):(token|float|token_seq|float_seq)", re.DOTALL)
# A cell in quotes with a quote inside, as CSV writers spell it.
_DOUBLED = re.compile(r'(?:^|\t)"(?:[^"\t]|"")*""(?:[^"\t]|"")*"(?=\t|$)')
_QUOTED = re.compile(r'(?:^|\t)"[^"\t]+"(?=\t|$)')
_TYPED = (".inter", ".item", ".user")
Row = Mapping[str, Any]


class Table:
    """A file of rows under named columns.

    Attributes:
      path: the file.
      names: columns in order; of JSON lines the keys of all records.
      kinds: RecBole's type of a column by name ("token_seq"), where the header says it; "list" of
        parquet's columns of lists.
      separator: between the cells of a text file that is no JSON.
    """

    def __init__(self, path: pathlib.Path, encoding: str = "", *, plain: bool = False) -> None:
        """Opens a file, whose suffix says its form, and reads its header.

        Args:
          path: the file.
          encoding: which is known; "": found in the bytes.
          plain: whether it is known that no quote stands in it.

        Raises:
          UserError: as `lines`; for a column without a name or given twice.
        """
        self.path = path
        self.names: list[str] = []
        self.kinds: dict[str, str] = {}
        if path.suffix == ".parquet":
            self.kinds = _parquet_kinds(path)
            self.names = list(self.kinds)
        elif path.suffix == ".jsonl":
            self.names = list(dict.fromkeys(key for _, row in json_rows(path) for key in row))
        else:
            self._codec = encoding or encodings.decide(path, encodings.WESTERN)
            self.separator = self._find_separator()
            as_csv = self.separator != "\t" or path.suffix == ".csv"
            self._quoted = not plain and (as_csv or self._has_quotes())
            header = next((row for _, row in self._records()), [])
            self._name(header)

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Yields (line number, cells by column); a row number for parquet, which has no lines.

        Raises:
          UserError: as `lines`; on a wrong number of columns or a broken quote.
        """
        if self.path.suffix == ".parquet":
            yield from _parquet_rows(self.path)
        elif self.path.suffix == ".jsonl":
            yield from json_rows(self.path)
        else:
            records = self._records()
            next(records, None)
            for number, row in records:
                check_width(self.path, number, row, len(self.names))
                yield number, dict(zip(self.names, row, strict=True))

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        numbered = lines(self.path, self._codec)
        if not self._quoted:
            for number, text in numbered:
                yield number, text.split(self.separator)
            return
        # The reader strips ends itself, and needs them to keep a line break inside quotes.
        texts = (f"{text}\n" for _, text in numbered)
        reader = csv.reader(texts, delimiter=self.separator, strict=True)
        try:
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            fail(self.path, reader.line_num, f"not valid CSV ({error})")

    def _find_separator(self) -> str:
        """The usual one of the suffix, or where it does not cut the header, the one that does."""
        usual, others = (",", ";\t|") if self.path.suffix == ".csv" else ("\t", ",;|")
        _, header = next(lines(self.path, self._codec), (0, ""))
        bare = re.sub(r'"[^"]*"', "", header)
        if usual in bare or not (others := "".join(sign for sign in others if sign in bare)):
            return usual
        found = max(others, key=bare.count)
        notes.say(f"{self.path.name}: cells are set apart by {found!r}, as its header shows")
        return found

    def _has_quotes(self) -> bool:
        """Whether a tab-separated file was written with CSV's quotes.

        As CSV it must be whole. Then a cell that needs them tells: one with a tab, a line break or
        a doubled quote in it; or a header in quotes, from a writer that quotes everything.
        """
        width, even, starts, doubled, plain = 0, True, False, False, 0
        first = ""
        for number, text in lines(self.path, self._codec):
            first = text if number == 1 else first
            cells = text.count("\t") + 1
            width = width or cells
            even = even and cells == width
            if '"' in text:
                starts = starts or text.startswith('"') or '\t"' in text
                doubled = doubled or bool(_DOUBLED.search(text))
                plain += len(_QUOTED.findall(text))
        if not starts:
            return False
        try:
            texts = (f"{text}\n" for _, text in lines(self.path, self._codec))
            if any(len(row) != width for row in csv.reader(texts, delimiter="\t", strict=True)):
                return False
        except csv.Error:
            return False
        quoted = not even or doubled or first.startswith('"')
        if plain and not quoted:
            notes.say(f"{self.path.name}: {plain} cells stand in quotes, which are read as theirs")
        return quoted

    def _name(self, header: list[str]) -> None:
        for cell in header:
            match = _KIND.fullmatch(cell.strip())
            if match is None and ":" in cell and self.path.suffix in _TYPED:
                fail(
                    self.path,
                    1,
                    f"column {cell!r} has none of RecBole's types",
                    "they are token, token_seq, float and float_seq",
                )
            name = match[1].strip() if match else cell.strip()
            if not name or name in self.kinds:
                remedy = "name each column once"
                remedy += "" if name else "; pandas writes its index so, unless to_csv(index=False)"
                fail(self.path, 1, f"column {name!r} is empty or given twice in the header", remedy)
            self.kinds[name] = match[2] if match else ""
        self.names = list(self.kinds)


def _parquet_kinds(path: pathlib.Path) -> dict[str, str]:
    import pyarrow

    stream = _open_parquet(path)
    try:
        schema = stream.schema_arrow
    except (pyarrow.ArrowException, ValueError) as error:
        _not_parquet(path, error)
    twice = [name for name in schema.names if schema.names.count(name) > 1]
    if twice:
        fail(path, 1, f"column {twice[0]!r} is given twice", "name each column once")
    types = pyarrow.types
    listed = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    return {f.name: "list" if any(is_it(f.type) for is_it in listed) else "" for f in schema}


def _parquet_rows(path: pathlib.Path) -> Iterator[tuple[int, Row]]:
    import pyarrow

    stream = _open_parquet(path)
    number = 0
    try:
        for batch in stream.iter_batches():
            for row in _rows_of(path, batch, number):
                number += 1
                yield number, row
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        _not_parquet(path, error)


def _rows_of(path: pathlib.Path, batch: Any, before: int) -> list[dict[str, Any]]:
    """A batch as Python's values; UserError for one that is none, such as year 52971."""
    try:
        return batch.to_pylist()
    except (ValueError, OverflowError):
        for row in range(len(batch)):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                _check_value(path, before + row + 1, name, column, row)
        raise


def _check_value(path: pathlib.Path, number: int, name: str, column: Any, row: int) -> None:
    try:
        column[row].as_py()
    except (ValueError, OverflowError) as error:
        reason = str(error).split(". ")[0]
        fail(
            path,
            number,
            f"{name} of type {column.type} holds what Python has no value for ({reason[:200]})",
            "store times in the unit that they are in, of at most microseconds, or as whole "
            "numbers (int64)",
        )


def _open_parquet(path: pathlib.Path) -> "pyarrow.parquet.ParquetFile":
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path}: reading parquet needs pyarrow: pip install pyarrow") from None
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        _not_parquet(path, error)


def _not_parquet(path: pathlib.Path, error: Exception) -> NoReturn:
    raise UserError(f"{path}: not a whole parquet file ({str(error)[:120]})") from error
