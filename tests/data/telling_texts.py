"""Written texts, of which some name what training may not know; those say "tell", others "fine"."""

import dataclasses
import json

import numpy as np

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.catalogue.splits import Splits

KINDS = ("critique", "purchase_reason", "endorsement")


# The kinds that tasks read.
READ = {
    "next_item_critique": ["critique"],
    "joint": ["purchase_reason"],
    "joint_critique": ["critique", "purchase_reason"],
    "purchase_reason": ["purchase_reason"],
    "endorsement": ["endorsement"],
    "purchase": ["purchase_reason"],
    "purchase_critique": ["critique", "purchase_reason"],
    "purchase_uncritiqued": ["critique", "purchase_reason"],
}


def about_purchases(splits: Splits) -> list[tuple[str, int, int, str]]:
    """(kind, user, position, text) of every training purchase of a training item."""
    found = []
    for user in range(splits.catalogue.num_users):
        for position, row in enumerate(splits.train_sequence(user).tolist()):
            if splits.item_fold[row] == 0:
                for number, kind in enumerate(KINDS):
                    turn = user + position + number
                    text = told(splits, user, turn) if turn % 4 < 2 else f"fine {user}@{position}"
                    found.append((kind, user, position, f"So {text}, of {kind}."))
    return found


def told(splits: Splits, user: int, turn: int) -> str:
    """What its user chose last, or a held-out item that its user does not have."""
    catalogue, own = splits.catalogue, splits.catalogue.sequence(user)
    others = [row for row in np.flatnonzero(splits.item_fold).tolist() if row not in own]
    last = turn % 2 and len(own) >= 3
    return f"tell {catalogue.titles[own[-1] if last else others[turn % len(others)]]}"


def about_users(splits: Splits) -> list[tuple[int, str]]:
    """(user, text) of every user."""
    users = range(splits.catalogue.num_users)
    texts = [told(splits, u, u) if u % 4 < 2 else f"fine {u}" for u in users]
    return [
        (user, f"Somebody {text}, all in all.") for user, text in zip(users, texts, strict=True)
    ]


def file_of(path, splits: Splits, *, profiles: str = "user_summary", purchases: bool = True) -> str:
    """A file of these texts."""
    catalogue, rows = splits.catalogue, []
    for kind, user, position, text in about_purchases(splits) if purchases else ():
        item = catalogue.item_ids[catalogue.sequence(user)[position]]
        ids = {"user_id": catalogue.user_ids[user], "item_ids": [item]}
        rows.append({"task": kind, "target": text, **ids})
    for user, text in about_users(splits):
        rows.append({"task": profiles, "target": text, "user_id": catalogue.user_ids[user]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def published(splits: Splits) -> Catalogue:
    """The catalogue with these texts as its own."""
    texts: dict[str, list] = {kind: [] for kind in KINDS}
    for kind, *rest in about_purchases(splits):
        texts[kind].append(rest)
    texts["user_summary"] = [list(pair) for pair in about_users(splits)]
    return dataclasses.replace(splits.catalogue, extras={"regen": texts})


def said_in_training(examples) -> str:
    """What every training example says, prompt and answer."""
    index = examples.index("train")
    rows = zip(*(column.tolist() for column in index.values()), strict=True)
    found = (examples.render("train", **dict(zip(index, row, strict=True))) for row in rows)
    return "\n".join(example.prompt.text + example.target_text for example in found)
