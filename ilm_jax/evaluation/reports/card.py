"""The protocol card: what the metrics of an evaluation mean. Two cards that differ in anything but
what was found (`FOUND`) describe metrics that may not be compared."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Parts of a card that are results, not rules.
FOUND = ("found", "score")
BY_NAMES = (
    "sum of log-probabilities of the item's tokens under the trie; a target outside the "
    "list counts 0"
)
BY_HEAD = (
    "the item head's: inner product of user and item, and the item's bias; a target "
    "outside the list counts 0"
)


def by_names(length_penalty: float) -> str:
    """What lists by id strings are ordered by."""
    if not length_penalty:
        return BY_NAMES
    of_items, of_targets = BY_NAMES.split("; ")
    return f"{of_items}, over its number of tokens to the power {length_penalty:g}; {of_targets}"


def interactions_card(splits: Mapping[str, Any]) -> dict[str, Any]:
    """Which data were held out; `splits` is `Splits.report()`."""
    held_out = "off: no item's text is held out"
    if splits.get("held_out_items"):
        pairs = "do" if splits.get("item_pairs_of_held_out") else "do not"
        held_out = (
            f"{splits['held_out_items']:g} of the items for each of validation and test; their "
            f"vectors {pairs} take part in item-item pairs"
        )
    return {
        "interactions": "leave-one-out: last is test, the one before it validation",
        "held_out_items": held_out,
        "split": dict(splits),
        "intervals": "95 %, percentile bootstrap over users or texts (fixed seed)",
    }


def ranking_card(
    *,
    task: str,
    split: str,
    users: int | str,
    users_total: int,
    items: int,
    beams: int,
    excludes_history: bool,
    found: Mapping[str, float],
    candidates: tuple[int, str] | None = None,
    score: str = BY_NAMES,
    **more: Any,
) -> dict[str, Any]:
    """Protocol of ranked lists.

    Args:
      task, split: whose targets were ranked.
      users: users whose target was ranked, or a sample in words. users_total: users that have one.
      items: size of the catalogue.
      beams: length of the decoded lists.
      excludes_history: whether a user's earlier items are left out of the candidates.
      found: validity and collision rates of the generated ids.
      candidates: (how many the prompt names, to be ranked alone, fingerprint of all such lists);
        None: the full catalogue.
      score: what lists are ordered by, which is the model's and may differ.
      **more: whatever else decides the metrics.
    """
    if isinstance(users, int) and users != users_total:
        users = f"{users}, a fixed sample of {users_total}"
    return {
        "task": task,
        "split": split,
        "candidates": f"full catalogue of {items}"
        if candidates is None
        else f"{candidates[0]} that the prompt names, the target among them: figures are of these "
        f"lists ({candidates[1]})",
        "seen_items": "left out, but for the target" if excludes_history else "kept as candidates",
        "users": f"{users}",
        "averaged": "over users, one target each",
        "beams": beams,
        "ties": "items of equal scores stand in the order of the catalogue, in every file",
        "score": score,
        "found": dict(found),
        **more,
    }


def language_card(*, task: str, split: str, texts: int | str, **more: Any) -> dict[str, Any]:
    """Protocol of nll, averaged over so many texts, or a sample in words."""
    return {
        "task": task,
        "split": split,
        "texts": texts,
        "nll": "nats per target token over held-out items' texts, total over total",
        "nll_content": "tokens that carry information only",
        "worth": "nll with another of the items' vectors in each prompt, by a fixed draw, less nll "
        "with its own",
        **more,
    }


def texts_card(
    *,
    task: str,
    split: str,
    texts: int | str,
    length: int,
    encoder: str,
    rater: str,
    words: Mapping[str, str],
    stop_ids: Sequence[int] = (),
    **more: Any,
) -> dict[str, Any]:
    """How texts were generated and measured: cut into which words, by which sentence encoder and
    which judge."""
    ended = f", ended by ids {', '.join(map(str, stop_ids))}" if len(stop_ids) > 1 else ""
    return {
        "task": task,
        "split": split,
        "texts": texts,
        "decoding": f"greedy, at most {length} tokens{ended}",
        "averaged": "over texts; bleu over the corpus",
        "semantic": "cosine of sentence vectors, 0 at other items' references, 1 at the reference",
        "encoder": encoder,
        "rater": rater,
        "words": dict(words),
        **more,
    }


def ratings_card(
    *, task: str, split: str, ratings: int, users: int | str, liked: float, **more: Any
) -> dict[str, Any]:
    """Protocol of predicted ratings, of so many users, or of a sample in words."""
    return {
        "task": task,
        "split": split,
        "ratings": ratings,
        "users": f"{users}",
        "prediction": "mean of the scale under the softmax of its values' log-probabilities",
        "auc": f"positives: ratings of at least {liked:g}; scores: the predictions",
        "uauc": "mean over users with ratings on both sides",
        **more,
    }


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Differences of two cards, as "ranking.users: 500 and 3000"; empty if they agree."""
    one, two = dict(_leaves(first)), dict(_leaves(second))
    return [
        f"{name}: {one.get(name, 'absent')} and {two.get(name, 'absent')}"
        for name in {**one, **two}
        if one.get(name) != two.get(name)
    ]


def score_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Lists that two evaluations ordered by different scores, as `differences` says it.

    The score is the model's: what an item head gives, or the likelihood of id strings, whose length
    may count. It may differ, and is said.

    Args:
      first, second: cards.
    """
    one, two = (
        {name: part for name, part in _leaves(card, skipped=()) if name.endswith(".score")}
        for card in (first, second)
    )
    return differences(*({n: side[n] for n in one if n in two} for side in (one, two)))


def prompt_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """How two evaluated models were asked, where that differs, as `differences` says it.

    Another layout, system text or tokenizer is part of the model that is measured, so it is said
    and not refused; metrics of tokens are refused where they are paired. Evaluations of earlier
    versions have no record of it, and nothing is said of those.

    Args:
      first, second: records of evaluation.json.
    """
    one, two = first.get("prompts"), second.get("prompts")
    if not one or not two:
        return []
    digests = ("template", "tokenizer")
    shown = [
        {name: value[:12] if name in digests else value for name, value in said.items() if value}
        for said in (one, two)
    ]
    return differences(*shown)


def _leaves(
    card: Mapping[str, Any], prefix: str = "", skipped: Sequence[str] = FOUND
) -> Iterator[tuple[str, Any]]:
    for name, value in card.items():
        if name in skipped:
            continue
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.", skipped)
        else:
            yield f"{prefix}{name}", value
