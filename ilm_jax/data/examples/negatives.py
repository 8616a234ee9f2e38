"""Items that a user has not chosen, drawn by hash."""

from ilm_jax.data import draws
from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.errors import UserError


def draw_negatives(
    splits: Splits, user: int, count: int, *keys: draws.Key, may_be_held_out: bool = False
) -> list[int]:
    """Different item rows that are none of the user's, a pure function of the keys.

    Args:
      splits: of the catalogue.
      user: row.
      count: how many.
      *keys: of the draw.
      may_be_held_out: only the user's training items are ruled out.

    Raises:
      UserError: if the catalogue has too few other items.
    """
    catalogue = splits.catalogue
    own = splits.train_sequence(user) if may_be_held_out else catalogue.sequence(user)
    taken = set(own.tolist())
    if catalogue.num_items - len(taken) < count:
        raise UserError(
            f"{catalogue.name}: user {catalogue.user_ids[user]!r} leaves "
            f"{catalogue.num_items - len(taken)} other items, {count} are wanted: lower candidates"
        )
    found: list[int] = []
    attempt = 0
    while len(found) < count:
        item = draws.integer(catalogue.num_items, *keys, "negative", attempt)
        attempt += 1
        if item not in taken:
            taken.add(item)
            found.append(item)
    return found
