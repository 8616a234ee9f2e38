"""A table of `ilm fit_cf` whose item vectors are dealt anew to the items that have one.

    python studies/shuffled_vectors.py --table=cf.safetensors --output=shuffled.safetensors

A control: what is made of it has the same numbers and says nothing of the items.
"""

import argparse
import dataclasses
import sys

import numpy as np
from exiting import exit_code

from ilm_jax.cf.table import EmbeddingTable


def shuffled(table: EmbeddingTable) -> EmbeddingTable:
    """The table with its warm items' vectors permuted; users and cold items stay."""
    known = np.flatnonzero(~table.item_cold)
    item = table.item.copy()
    item[known] = item[np.random.default_rng(0).permutation(known)]
    return dataclasses.replace(table, item=item)


def main() -> int:
    """Parses the words and writes the table."""
    parser = argparse.ArgumentParser(prog="shuffled_vectors.py", description=__doc__)
    parser.add_argument("--table", required=True)
    parser.add_argument("--output", required=True)
    words = parser.parse_args()
    shuffled(EmbeddingTable.load(words.table)).save(words.output)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
