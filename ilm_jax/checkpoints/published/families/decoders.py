"""Reads what the config.json files and tensor names of Hugging Face's decoder-only models share.

Names and meanings as in `transformers`, models/*/configuration_*.py and modeling_*.py; a file may
give rotary positions in the older way (`rope_theta`, `rope_scaling`) or the newer
(`rope_parameters`).
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ilm_jax.checkpoints.published.families import options
from ilm_jax.checkpoints.published.families.agreeing import agree, flag, integer, number
from ilm_jax.checkpoints.published.rules import Buffer, Copy, Rule
from ilm_jax.errors import UserError
from ilm_jax.models.decoder import DecoderConfig, RopeScaling
from ilm_jax.models.stacking import layer_name

SIZES = {
    "vocab_size": "vocab_size",
    "num_hidden_layers": "num_layers",
    "hidden_size": "embed_dim",
    "intermediate_size": "mlp_dim",
    "num_attention_heads": "num_heads",
}
READ = frozenset(SIZES) | set(
    "num_key_value_heads head_dim hidden_act rms_norm_eps rope_theta rope_scaling rope_parameters "
    "tie_word_embeddings".split()
)
# Options that say how to train or split, beside those of every family.
NEUTRAL = frozenset("attention_dropout is_decoder pretraining_tp".split())
ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu"}
# No model has more layers; a pattern of kinds is written out so far.
DEEPEST = 100_000
KINDS = {"full_attention": "global", "sliding_attention": "local"}


def check_options(
    found: Mapping[str, Any], read: Sequence[str], fixed: Mapping[str, tuple[object, ...]]
) -> None:
    """Raises UserError naming an option of config.json that would compute something else.

    Args:
      found: config.json.
      read: names of options that the family reads, beyond those of all.
      fixed: {option: values that change nothing}.
    """
    off = {"is_encoder_decoder": (False, None)}
    options.check(found, READ | NEUTRAL | set(read), off | dict(fixed))


def shared(found: Mapping[str, Any], *, tied: bool, rope: bool = True) -> dict[str, Any]:
    """The arguments of DecoderConfig that all families state alike.

    Args:
      found: config.json.
      tied: whether output and input tables are one where the file does not say.
      rope: read rotary positions too (which Gemma 3 gives for each kind of layer).

    Raises:
      UserError: for a size that is missing or a value that is not supported.
    """
    missing = sorted(name for name in SIZES if found.get(name) is None)
    if missing:
        raise UserError(f"config.json of a {found.get('model_type')} model lacks {missing}")
    arguments: dict[str, Any] = {ours: integer(found, n) for n, ours in SIZES.items()}
    arguments["num_kv_heads"] = integer(found, "num_key_value_heads")
    arguments["head_dim"] = integer(found, "head_dim")
    arguments["norm_eps"] = number(found, "rms_norm_eps", 1e-6)
    arguments["activation"] = activation(found.get("hidden_act", "silu"))
    arguments["tie_embeddings"] = flag(found, "tie_word_embeddings", tied)
    if arguments["head_dim"] is None and arguments["embed_dim"] % arguments["num_heads"]:
        raise UserError(
            f"config.json says hidden_size={arguments['embed_dim']}, no multiple of "
            f"num_attention_heads={arguments['num_heads']}, and no head_dim"
        )
    kinds = found.get("layer_types")
    if kinds is not None and (not isinstance(kinds, list) or len(kinds) != arguments["num_layers"]):
        raise UserError(
            f"config.json says num_hidden_layers={arguments['num_layers']}, and layer_types are of "
            f"{len(kinds) if isinstance(kinds, list) else kinds!r}"
        )
    if rope:
        arguments |= one_rotary(found, ("rope_scaling", "rope_parameters"), "rope_theta", 10_000.0)
    return arguments


def one_rotary(
    found: Mapping[str, Any], places: Sequence[str], base: str, default: float, kind: str = ""
) -> dict[str, Any]:
    """{"rope_theta", "rope_scaling"} of the layers of a kind, from all places that may say it.

    Args:
      found: config.json.
      places: options that hold an object about rotary positions.
      base: the option that gives theta by itself; its default is `default`.
      kind: the key under which `rope_parameters` says it, where it does so for kinds of layers.

    Raises:
      UserError: if two places differ, or as `rotary`.
    """
    objects: dict[str, Mapping[str, Any]] = {}
    for place in places:
        stated = found.get(place) or {}
        if kind and place == "rope_parameters":
            place, stated = f"{place}.{kind}", stated.get(kind) or {}
        if not isinstance(stated, Mapping):
            raise UserError(f"config.json says {place}={stated!r}: it is an object")
        if stated:
            objects[place] = stated
    thetas = {base: found.get(base)}
    thetas |= {f"{place}.rope_theta": stated.get("rope_theta") for place, stated in objects.items()}
    theta = number({base: agree(thetas)}, base, default)
    scalings = {place: rotary(found, stated, theta)[1] for place, stated in objects.items()}
    if len(set(scalings.values())) > 1:
        raise UserError(
            f"config.json says two things about rotary positions, {' and '.join(scalings)}: delete "
            "the wrong one"
        )
    return {"rope_theta": theta, "rope_scaling": next(iter(scalings.values()), None)}


def activation(name: str) -> str:
    """Ours of theirs.

    Raises:
      UserError: for one that DecoderConfig does not have.
    """
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise UserError(f"config.json: activation {name!r} is not one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


_ROPE = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


def rotary(
    found: Mapping[str, Any], stated: Mapping[str, Any], theta: float
) -> tuple[float, RopeScaling | None]:
    """(rope_theta, rope_scaling).

    Args:
      found: config.json.
      stated: its `rope_scaling` or `rope_parameters`, of one kind of layer.
      theta: where `stated` has none.

    Raises:
      UserError: for a kind of scaling, or a setting of one, that is not built.
    """
    kind = agree({name: stated.get(name) for name in ("rope_type", "type")}) or "default"
    if not isinstance(kind, str) or kind not in _ROPE:
        raise UserError(
            f"config.json: rope_type {kind!r} is not one of {', '.join(_ROPE)}: delete it for "
            "texts no longer than those of pre-training, if the model's card says so"
        )
    names = _ROPE[kind]
    extra = sorted(
        set(stated) - {"rope_type", "type", "rope_theta", "partial_rotary_factor", *names}
    )
    # What a file without scaling says about it changes nothing.
    if (extra and kind != "default") or stated.get("partial_rotary_factor", 1.0) != 1.0:
        extra = extra or ["partial_rotary_factor"]
        raise UserError(f"config.json: rope_type {kind!r} with {', '.join(extra)} is not built")
    theta = stated.get("rope_theta", theta)
    if kind == "default":
        return theta, None
    fallback = {"original_max_position_embeddings": found.get("max_position_embeddings")}
    values = [stated.get(name, fallback.get(name)) for name in names]
    if None in values:
        raise UserError(f"config.json: rope_type {kind!r} lacks {names[values.index(None)]}")
    values = [number({name: value}, name, 0) for name, value in zip(names, values, strict=True)]
    return theta, RopeScaling(kind, *values)


def pattern(layer_types: Sequence[str]) -> tuple[str, ...]:
    """The shortest pattern whose repetition gives the kinds of all layers.

    Raises:
      UserError: for an unknown kind.
    """
    unknown = sorted(set(map(str, layer_types)) - set(KINDS))
    if unknown:
        raise UserError(f"config.json: layer_types {unknown} are not of {', '.join(KINDS)}")
    kinds = [KINDS[name] for name in layer_types]
    for period in range(1, len(kinds) + 1):
        if all(kind == kinds[i % period] for i, kind in enumerate(kinds)):
            return tuple(kinds[:period])
    raise UserError("config.json: layer_types is empty")


def rename(name: str) -> str:
    """A tensor's name as the model with a head, without eyes, has it."""
    name = re.sub(r"^(model\.)?language_model\.(model\.)?", "model.", name)
    name = name.replace("model.lm_head.", "lm_head.")
    return re.sub(r"^(embed_tokens|layers|norm)\.", r"model.\1.", name)


def rules(config: DecoderConfig) -> dict[str, Rule]:
    """The source of each entry of the decoder."""
    table = {
        "embedding/embedding": Rule("model.embed_tokens.weight"),
        "final_norm/scale": Rule("model.norm.weight"),
    }
    if not config.tie_embeddings:
        table["head/embedding"] = Rule("lm_head.weight")
    for i in range(config.num_layers):
        for entry, rule in _layer(config, f"model.layers.{i}").items():
            table[f"{layer_name(i)}/{entry}"] = rule
    return table


def _layer(config: DecoderConfig, layer: str) -> dict[str, Rule]:
    """{entry of a layer: rule}."""
    attention = f"{layer}.self_attn"
    before_mlp = "pre_feedforward" if config.post_norms else "post_attention"
    table = {
        "attention_norm/scale": Rule(f"{layer}.input_layernorm.weight"),
        "mlp_norm/scale": Rule(f"{layer}.{before_mlp}_layernorm.weight"),
    }
    if config.post_norms:
        table["attention_post_norm/scale"] = Rule(f"{layer}.post_attention_layernorm.weight")
        table["mlp_post_norm/scale"] = Rule(f"{layer}.post_feedforward_layernorm.weight")
    for name in ("query", "key", "value", "out"):
        theirs = f"{attention}.{name[0]}_proj"
        table[f"attention/{name}/kernel"] = Rule(f"{theirs}.weight", transposed=True)
        if config.out_bias if name == "out" else config.attention_bias:
            table[f"attention/{name}/bias"] = Rule(f"{theirs}.bias")
    if config.qk_norm:
        for name in ("query", "key"):
            table[f"attention/{name}_norm/scale"] = Rule(f"{attention}.{name[0]}_norm.weight")
    for name in ("gate", "up", "down"):
        table[f"mlp/{name}/kernel"] = Rule(f"{layer}.mlp.{name}_proj.weight", transposed=True)
    return table


def copies(config: DecoderConfig) -> list[Copy[DecoderConfig]]:
    """A tied output layer, which files may hold too, or alone."""
    if not config.tie_embeddings:
        return []
    untied = dataclasses.replace(config, tie_embeddings=False)
    return [Copy("lm_head.weight", "model.embed_tokens.weight", untied)]


def buffers(config: DecoderConfig) -> list[Buffer]:
    """Tables of rotary frequencies, of the model or of a layer."""

    def values(name: str, half: int) -> list[np.ndarray]:
        """What a stored buffer of rotary frequencies [half] may hold: one of these."""
        layer = re.search(r"layers\.(\d+)\.", name)
        local = "_local" in name or bool(layer and config.kind(int(layer[1])) == "local")
        theta, scaling = config.rope_theta, config.rope_scaling
        if local and config.rope_local_theta is not None:
            theta, scaling = config.rope_local_theta, None
        plain = theta ** (-np.arange(half, dtype=np.float32) / half)
        if scaling is None:
            return [plain]
        scaled = np.asarray(scaling.of(jnp.asarray(plain)))
        # Older files divide positions where newer ones divide frequencies.
        return [scaled, plain] if scaling.kind == "linear" else [scaled]

    return [Buffer(r"rotary_emb(_local)?\.inv_freq$", values)]


# Of every family of decoders.
SHARED: dict[str, Any] = {"rename": rename, "copies": copies, "buffers": buffers}
