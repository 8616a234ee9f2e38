"""T5, T5 1.1 and FLAN-T5 as `transformers` names their tensors.

Not mT5 and umT5: releases of `transformers` disagree on whether their output layers are tied.
"""

from collections.abc import Mapping
from typing import Any

from ilm_jax.checkpoints.published.families.agreeing import agree, flag, integer, number
from ilm_jax.checkpoints.published.families.options import check
from ilm_jax.checkpoints.published.rules import Copy, Family, Rule
from ilm_jax.errors import UserError
from ilm_jax.models.t5_layers import T5Config

FEED_FORWARDS = {
    "relu": ("relu", False),
    "gated-relu": ("relu", True),
    "gated-gelu": ("gelu", True),
    "gated-silu": ("silu", True),
}
SIZES = {
    "vocab_size": "vocab_size",
    "d_model": "embed_dim",
    "d_ff": "mlp_dim",
    "num_layers": "num_layers",
    "num_heads": "num_heads",
}
# Options that say how to train or store, beside those of every family.
NEUTRAL = frozenset(
    "attribute_map classifier_dropout dense_act_fn dropout_rate gradient_checkpointing "
    "initializer_factor is_decoder is_encoder_decoder is_gated_act n_positions output_past "
    "scale_decoder_outputs tie_word_embeddings".split()
)
READ = {
    *SIZES,
    "d_kv",
    "feed_forward_proj",
    "layer_norm_epsilon",
    "num_decoder_layers",
    "relative_attention_max_distance",
    "relative_attention_num_buckets",
}


def config(options: Mapping[str, Any]) -> T5Config:
    """Our sizes of a config.json.

    Raises:
      UserError: for an option that is unknown, missing or not supported, by its name.
    """
    check(options, NEUTRAL | READ, {})
    missing = sorted(name for name in SIZES if options.get(name) is None)
    if missing:
        raise UserError(f"config.json of a t5 model lacks {missing}")
    kind = options.get("feed_forward_proj", "relu")
    if not isinstance(kind, str) or kind not in FEED_FORWARDS:
        raise UserError(
            f'config.json: feed_forward_proj="{kind}" is not one of {", ".join(FEED_FORWARDS)}'
        )
    if options.get("is_decoder"):
        raise UserError("config.json: is_decoder is not supported for T5")
    activation, gated = FEED_FORWARDS[kind]
    # Since version 5, transformers writes tie_word_embeddings=true into the folders of T5 1.1 too
    # and tells the two by this option.
    tied = flag(options, "tie_word_embeddings", True)
    scaled = flag(options, "scale_decoder_outputs", tied)
    if scaled and not tied:
        raise UserError(
            "config.json says tie_word_embeddings=false and scale_decoder_outputs=true: outputs "
            "are scaled where the tables are one; correct the wrong one"
        )
    _check_activation(options, kind)
    sizes: dict[str, Any] = {ours: integer(options, theirs) for theirs, ours in SIZES.items()}
    return T5Config(
        **sizes,
        num_decoder_layers=integer(options, "num_decoder_layers"),
        head_dim=integer(options, "d_kv") or 64,
        activation=activation,
        gated=gated,
        tie_embeddings=scaled,
        position_buckets=integer(options, "relative_attention_num_buckets") or 32,
        max_distance=integer(options, "relative_attention_max_distance") or 128,
        start_id=_token(options, "decoder_start_token_id", 0),
        eos_id=_token(options, "eos_token_id", 1),
        norm_eps=number(options, "layer_norm_epsilon", 1e-6),
    )


def _check_activation(options: Mapping[str, Any], kind: str) -> None:
    """Newer files say feed_forward_proj's two parts too."""
    activation, gated = FEED_FORWARDS[kind]
    theirs = "gelu_new" if kind == "gated-gelu" else activation
    derived = f"(of feed_forward_proj={kind!r})"
    agree({"dense_act_fn": options.get("dense_act_fn"), f"dense_act_fn {derived}": theirs})
    agree({"is_gated_act": options.get("is_gated_act"), f"is_gated_act {derived}": gated})


def _token(options: Mapping[str, Any], name: str, default: int) -> int:
    value = options.get(name)
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if value is None:
        return default
    if type(value) is not int or not 0 <= value < (integer(options, "vocab_size") or 0):
        raise UserError(f"config.json says {name}={value!r}: it is one id of the vocabulary")
    return value


def rules(config: T5Config) -> dict[str, Rule]:
    """{entry: rule} of such a model."""
    entries = {"embedding/embedding": Rule("shared.weight")}
    if not config.tie_embeddings:
        entries["head/embedding"] = Rule("lm_head.weight")
    for stack, count in (("encoder", config.num_layers), ("decoder", config.decoder_layers)):
        entries[f"{stack}/final_norm/scale"] = Rule(f"{stack}.final_layer_norm.weight")
        for i in range(count):
            ours, theirs = f"{stack}/layer_{i:02d}", f"{stack}.block.{i}.layer"
            table = Rule(f"{theirs}.0.SelfAttention.relative_attention_bias.weight")
            if i == 0:
                entries[f"{stack}/positions/embedding"] = table
            layer = _layer(config, decodes=stack == "decoder")
            for entry, (sublayer, name) in layer.items():
                entries[f"{ours}/{entry}"] = Rule(
                    f"{theirs}.{sublayer}.{name}.weight", transposed=entry.endswith("kernel")
                )
    return entries


def _layer(config: T5Config, *, decodes: bool) -> dict[str, tuple[int, str]]:
    """{entry of a layer: (number of their sublayer, tensor)}."""
    blocks = [("attention", "SelfAttention")]
    if decodes:
        blocks.append(("cross_attention", "EncDecAttention"))
    found = {}
    for place, (ours, theirs) in enumerate(blocks):
        found[f"{ours}_norm/scale"] = (place, "layer_norm")
        for name in ("query", "key", "value", "out"):
            found[f"{ours}/{name}/kernel"] = (place, f"{theirs}.{name[0]}")
    last = len(blocks)
    found["mlp_norm/scale"] = (last, "layer_norm")
    names = {"gate": "wi_0", "up": "wi_1"} if config.gated else {"up": "wi"}
    for ours, theirs in (names | {"down": "wo"}).items():
        found[f"mlp/{ours}/kernel"] = (last, f"DenseReluDense.{theirs}")
    return found


def copies(config: T5Config) -> list[Copy[T5Config]]:
    """Names of the one table; a tied model's output layer is it too."""
    found: list[Copy[T5Config]] = [
        Copy(f"{stack}.embed_tokens.weight", "shared.weight") for stack in STACKS
    ]
    if config.tie_embeddings:
        # Untied, its states would not be scaled by embed_dim^-0.5: which is meant is not ours to
        # say.
        remedy = (
            "say tie_word_embeddings=false in config.json if the output layer is a table of its "
            "own (T5 1.1), or delete lm_head.weight"
        )
        found.append(Copy("lm_head.weight", "shared.weight", remedy=remedy))
    return found


STACKS = ("encoder", "decoder")
FAMILY = Family(
    model_types=("t5",),
    config=config,
    rules=rules,
    # A table of positions between decoder and encoder, which nothing reads.
    unused=(r"^decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$",),
    copies=copies,
)
