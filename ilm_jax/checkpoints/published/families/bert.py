"""BERT and MiniLM as Hugging Face's BertModel names their tensors.

Layout: transformers, models/bert/modeling_bert.py. Checkpoints of models with heads put `bert.`
before the names, and the oldest ones call a norm's scale and bias gamma and beta.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ilm_jax.checkpoints.published.families.agreeing import integer, number
from ilm_jax.checkpoints.published.families.options import CARRIED, GENERAL
from ilm_jax.checkpoints.published.rules import Buffer, Family, Rule
from ilm_jax.errors import UserError
from ilm_jax.models.encoder import BertConfig
from ilm_jax.models.stacking import layer_name

# Options with the only value that BertConfig can express.
FIXED: dict[str, Any] = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
_READ = (
    "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size "
    "max_position_embeddings layer_norm_eps hidden_dropout_prob attention_probs_dropout_prob"
)
# What changes no number that the encoder computes, beside what every family's files carry.
_NEUTRAL = (
    "type_vocab_size classifier_dropout cls_token_id tie_word_embeddings pruned_heads "
    "is_encoder_decoder tie_encoder_decoder cross_attention_hidden_size pooler_fc_size "
    "pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type "
    "directionality language name"
)
KNOWN = frozenset(f"{_READ} {_NEUTRAL}".split()) | set(FIXED) | GENERAL | CARRIED


def config(found: Mapping[str, Any]) -> BertConfig:
    """Our configuration of a config.json.

    Raises:
      UserError: for an option that it has no field for, or a size that is missing.
    """
    check_options(found, FIXED, KNOWN)
    rate = found.get("hidden_dropout_prob", 0.1)
    if found.get("attention_probs_dropout_prob", rate) != rate:
        raise UserError(
            f"config.json says hidden_dropout_prob={rate} and another "
            "attention_probs_dropout_prob: the encoder has one rate"
        )
    return BertConfig(
        vocab_size=size(found, "vocab_size"),
        num_layers=size(found, "num_hidden_layers"),
        embed_dim=size(found, "hidden_size"),
        num_heads=size(found, "num_attention_heads"),
        mlp_dim=size(found, "intermediate_size"),
        max_text_length=size(found, "max_position_embeddings"),
        dropout=rate,
        norm_eps=number(found, "layer_norm_eps", 1e-12),
    )


def check_options(
    found: Mapping[str, Any], fixed: Mapping[str, Any], known: frozenset[str] | set[str]
) -> None:
    """Raises UserError naming an option of config.json that would compute something else."""
    for name, value in fixed.items():
        if found.get(name, value) != value:
            raise UserError(
                f"config.json says {name}={found[name]!r}: only {name}={value!r} is built here"
            )
    unknown = sorted(name for name in found if name not in known)
    if unknown:
        raise UserError(
            f"config.json has unknown options {', '.join(unknown)}: use a model without them, or "
            "delete them if they do not change what it computes"
        )


def size(found: Mapping[str, Any], name: str) -> int:
    """A number that config.json must have.

    Raises:
      UserError: if it is not there.
    """
    value = integer(found, name)
    if value is None:
        raise UserError(f"config.json lacks {name}")
    return value


def rename(name: str) -> str:
    """A tensor's name as BertModel has it."""
    name = re.sub(r"^bert\.", "", name)
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name).replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def dense(ours: str, theirs: str) -> dict[str, Rule]:
    """Rules of a Dense."""
    return {
        f"{ours}/kernel": Rule(f"{theirs}.weight", transposed=True),
        f"{ours}/bias": Rule(f"{theirs}.bias"),
    }


def norm(ours: str, theirs: str) -> dict[str, Rule]:
    """Rules of a LayerNorm."""
    return {f"{ours}/scale": Rule(f"{theirs}.weight"), f"{ours}/bias": Rule(f"{theirs}.bias")}


def attention(ours: str, inner: str, output: str) -> dict[str, Rule]:
    """Rules of an attention with its norm; `inner` and `output` are the names of its halves."""
    parts = [dense(f"{ours}/{part}", f"{inner}.{part}") for part in ("query", "key", "value")]
    parts += [dense(f"{ours}/out", f"{output}.dense"), norm(f"{ours}_norm", f"{output}.LayerNorm")]
    return {name: rule for part in parts for name, rule in part.items()}


def mlp(ours: str, intermediate: str, output: str) -> dict[str, Rule]:
    """Rules of a feed-forward block with its norm."""
    return {
        **dense(f"{ours}/up", f"{intermediate}.dense"),
        **dense(f"{ours}/down", f"{output}.dense"),
        **norm(f"{ours}_norm", f"{output}.LayerNorm"),
    }


def rules(config: BertConfig) -> dict[str, Rule]:
    """The source of each entry of `Bert`."""
    table = {
        "embedding/token/embedding": Rule("embeddings.word_embeddings.weight"),
        "embedding/position/embedding": Rule(
            "embeddings.position_embeddings.weight",
            plus_row="embeddings.token_type_embeddings.weight",
        ),
        **norm("embedding_norm", "embeddings.LayerNorm"),
    }
    for i in range(config.num_layers):
        ours, theirs = layer_name(i), f"encoder.layer.{i}"
        inner, output = f"{theirs}.attention.self", f"{theirs}.attention.output"
        table |= attention(f"{ours}/attention", inner, output)
        table |= mlp(f"{ours}/mlp", f"{theirs}.intermediate", f"{theirs}.output")
    return table


def buffers(config: object) -> list[Buffer]:
    """Numbers of positions, and the type 0 of all tokens."""
    return [
        Buffer(r"^embeddings\.position_ids$", lambda name, size: [np.arange(size)]),
        Buffer(r"^embeddings\.token_type_ids$", lambda name, size: [np.zeros(size)]),
    ]


FAMILY = Family(
    model_types=("bert",),
    config=config,
    rules=rules,
    # The pooler and the heads of pre-training, which no sentence vector reads.
    unused=(r"^pooler\.", r"^cls\."),
    rename=rename,
    buffers=buffers,
)
