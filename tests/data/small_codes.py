"""Codes by arithmetic, for tests that do not ask where codes come from."""

import numpy as np

from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.examples.item_codes import ItemCodes


def small_codes(splits: Splits) -> ItemCodes:
    """Row r has the code (r mod 4, r / 4 mod 5, r / 20)."""
    rows = np.arange(splits.catalogue.num_items)
    codes = np.stack([rows % 4, rows // 4 % 5, rows // 20], axis=1).astype(np.int32)
    return ItemCodes(
        catalogue=splits.catalogue.name,
        item_ids=list(splits.catalogue.item_ids),
        codes=codes,
        sizes=(4, 5, int(codes[:, -1].max()) + 1),
        split_fingerprint=splits.fingerprint,
        quantizer={"center": np.zeros(3, np.float32)},
        settings={"by": "arithmetic"},
        statistics={"items": len(rows)},
    )
