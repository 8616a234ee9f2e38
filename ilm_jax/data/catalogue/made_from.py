"""Files that hold something of every item or user, compared with the catalogue that reads them."""

import os
from collections.abc import Mapping, Sequence

from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.errors import UserError


def check_made_from(
    path: str | os.PathLike,
    catalogue: str,
    ids: Mapping[str, Sequence[str]],
    split_fingerprint: str,
    splits: Splits,
    remedy: str,
    if_more: str = "",
) -> None:
    """Raises UserError unless a file was made from this catalogue, row by row, and this split.

    Args:
      path: of the file, for the message.
      catalogue: its name, as the file has it.
      ids: raw ids of the file's rows by kind, "item" or "user".
      split_fingerprint: as the file has it.
      splits: those at hand.
      remedy: what to do, such as "fit it again".
      if_more: what else may be done where the catalogue has another number of rows.
    """
    here = splits.catalogue
    if catalogue != here.name:
        raise UserError(f"{path}: is of {catalogue}, not of {here.name}; {remedy}")
    for kind, ours in ids.items():
        theirs = here.item_ids if kind == "item" else here.user_ids
        if len(ours) != len(theirs):
            raise UserError(
                f"{path}: {len(ours)} {kind}s, the catalogue has {len(theirs)}; {remedy}{if_more}"
            )
        if ours == theirs:
            continue
        for row, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            if mine != other:
                raise UserError(
                    f"{path}: row {row} is {kind} {mine!r}, catalogue: {other!r}; {remedy}"
                )
    if split_fingerprint != splits.fingerprint:
        raise UserError(
            f"{path}: made on another split (fingerprint {split_fingerprint[:12]}, now "
            f"{splits.fingerprint[:12]}); use the same split settings, or {remedy}"
        )
