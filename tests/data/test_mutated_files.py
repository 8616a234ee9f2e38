"""Files damaged in 1,000 ways are read right or refused with file and line, by every reader.

The judge is a second reader (`slow_readers`): what our reader accepts must be what the judge sees,
row for row.
"""

import gzip

import pytest

from ilm_jax.data.sources import custom
from ilm_jax.errors import UserError
from tests.data import damaged_files, slow_readers
from tests.data.damaged_files import (
    CORPORA,
    ITEMS,
    MUTATIONS,
    RAW,
    READERS,
    TABLE,
    outcome,
    plain,
    same,
)

MUTANTS = 1000
# So many of each corpus of records, the rest among the slow tests.
FEWER = 60


def check(tmp_path, reader, mutants):
    name, read, judge = READERS[reader]
    raw = RAW[reader].encode()
    (tmp_path / name).write_bytes(raw)
    assert same(plain(read(tmp_path / name)), plain(judge(raw)))
    kinds = list(MUTATIONS)
    found = [outcome(reader, tmp_path, kinds[mutant % len(kinds)]) for mutant in range(mutants)]
    assert found.count("read") > 0.05 * mutants, found
    assert found.count("refused") > 0.3 * mutants, found


@pytest.mark.parametrize("reader", [name for name in READERS if name not in CORPORA])
def test_a_thousand_damaged_files(tmp_path, reader):
    check(tmp_path, reader, MUTANTS)


@pytest.mark.parametrize("reader", CORPORA)
def test_some_damaged_files_of_corpora(tmp_path, reader):
    check(tmp_path, reader, FEWER)


@pytest.mark.slow
@pytest.mark.parametrize("reader", CORPORA)
def test_a_thousand_damaged_files_of_corpora(tmp_path, reader):
    check(tmp_path, reader, MUTANTS)


def test_a_mutated_gzip_is_refused_too(tmp_path):
    path = tmp_path / "reviews.json.gz"
    raw = gzip.compress(RAW["reviews"].encode())
    good = plain(slow_readers.reviews(raw))
    for _ in range(300):
        changed = (
            MUTATIONS["bytes"](raw)
            if damaged_files.DRAW.integers(2)
            else MUTATIONS["truncated"](raw)
        )
        path.write_bytes(changed)
        try:
            found = plain(damaged_files.reviews(path))
        except UserError as error:
            assert str(path) in str(error)
        else:
            assert same(found, good)


def test_a_folder_is_refused_as_a_whole_or_read(tmp_path):
    assert custom.VERSION
    (tmp_path / "items.csv").write_text(ITEMS)
    (tmp_path / "interactions.csv").write_text(TABLE)
    found = custom.read(tmp_path)
    assert len(found.items) == 20
