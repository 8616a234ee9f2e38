"""Whether parameters of another run or model mean here what they meant there.

Their shapes fit wherever sizes are equal. A language model that read other token ids, a Q-Former
that read other vectors, and a model that has seen the texts which are held out here: each would
train and be measured without a word.
"""

import re
from collections.abc import Sequence

from ilm_jax.checkpoints.checkpoints import InitFrom, shorten
from ilm_jax.checkpoints.published.sources import Opened, open_source
from ilm_jax.checkpoints.record import Record
from ilm_jax.data.tokenizers import holds_tokenizer, open_tokenizer_at
from ilm_jax.errors import UserError
from ilm_jax.objectives.objective import Objective
from ilm_jax.sharding.freezing import matches


def check_lineage(opened: Opened, source: InitFrom, paths: Sequence[str], here: Record) -> None:
    """Compares where parameters come from with where they go.

    Args:
      opened: the source.
      source: what is taken from it; `allow_different` names what may differ.
      paths: parameters that it gives.
      here: the record of the run that takes them; what it lacks is not compared.

    Raises:
      UserError: if the tokenizer, the embedding table or the split of the data is another one.
    """
    there = opened.meta.get("made_from") or {}
    reads_words = [p for p in paths if p.startswith("lm/") or "/text_embedding/" in p]
    reads_vectors = [p for p in paths if not p.startswith("lm/")]
    if reads_words and here.get("tokenizer"):
        other = _tokenizer(opened, source.path)
        _same(
            source,
            "tokenizer",
            other,
            here["tokenizer"],
            "its ids are other words: set TOKENIZER to what it was trained with",
        )
    if here.get("tokenizer") and any(path.startswith("lm/new_tokens/") for path in paths):
        other, own = (x.get("new_tokens", {}).get("fingerprint") for x in (there, here))
        _same(
            source,
            "new_tokens",
            other,
            own or "none",
            "its rows are of other words: set TaskSettings.new_tokens and item_codes to what it "
            "was trained with",
        )
    if reads_vectors and here.get("table"):
        _same(
            source,
            "table",
            there.get("table"),
            here["table"],
            "it has learnt to read other vectors: set CF_TABLE to the table it was trained "
            "with, or train it again",
        )
    for name, split in here.get("data", {}).items():
        _same(
            source,
            "data",
            there.get("data", {}).get(name),
            split,
            f"it was trained on another split of {name}, and may have seen what is held out "
            "here: train it again on this one",
        )


def check_held(source: InitFrom, fresh: Sequence[str], objective: Objective) -> None:
    """Raises UserError where a run is taken without a part that it froze and does not hold.

    Drawn anew in its place, the part would be another one than what the run trained reads.
    """
    asked = [path for path in fresh if matches(path, source.parameters)]
    if not asked:
        return
    target = objective.configs.get(source.top)
    opened = open_source(source.path, source.top, source.step, target)
    there = opened.meta.get("made_from") or {}
    if "trains" not in there:
        return
    trained = (*there["trains"]["trainable"], *there["trains"]["adapters"])
    # What it had: whole models, and low-rank updates; words may be new here.
    had = {*opened.configs, *(name.split("/")[0] for name in opened.entries)} - {"lm"}
    patterns = [f"^{re.escape(top)}/" for top in had]
    patterns += ["/lora_"] if opened.configs.get("lm", ("", {}))[1].get("lora_rank") else []
    lost = [path for path in asked if matches(path, patterns) and not matches(path, trained)]
    if lost:
        came = ", ".join(init["path"] for init in there.get("init", [])) or "nowhere: it was drawn"
        raise UserError(
            f"{opened.where} froze {len(lost)} parameters {shorten(lost)} and does not hold them, "
            f"so that they would be drawn anew here: add what they came from ({came}) to "
            "TrainerConfig.init, or leave them out of InitFrom.parameters"
        )


def _same(source: InitFrom, name: str, there: str | None, here: str, remedy: str) -> None:
    if there is None or there == here or name in source.allow_different:
        return
    raise UserError(
        f"{source.path} was made from another {name} ({there[:12]}, here {here[:12]}): {remedy}; "
        f'or allow it by InitFrom.allow_different = ("{name}",)'
    )


def _tokenizer(opened: Opened, path: str) -> str | None:
    if opened.meta.get("tokenizer"):
        return opened.meta["tokenizer"]
    return open_tokenizer_at(path).fingerprint if holds_tokenizer(path) else None
