"""Gemma 1, 2 and 3. Of a Gemma 3 that sees (`model_type` gemma3), the language model alone is read.

Numbers that a config.json may leave out are those of `transformers`' configuration classes.
"""

from collections.abc import Mapping
from typing import Any

from ilm_jax.checkpoints.published.families import decoders
from ilm_jax.checkpoints.published.families.agreeing import agree, flag, integer
from ilm_jax.checkpoints.published.rules import Family
from ilm_jax.errors import UserError
from ilm_jax.models.decoder import DecoderConfig

# Published configs of Gemma 3 leave out what their size has in common with the class's.
_THIRD = {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
_FIXED: dict[str, tuple[object, ...]] = {"use_bidirectional_attention": (False, None)}
_LAYERS = "layer_types sliding_window query_pre_attn_scalar final_logit_softcapping".split()
# Of the model that sees: its eyes, and ids that stand for images.
_EYES = (
    "text_config vision_config mm_tokens_per_image boi_token_index eoi_token_index "
    "image_token_index boi_token_id eoi_token_id image_token_id"
).split()


def config(found: Mapping[str, Any]) -> DecoderConfig:
    """Our configuration of a config.json.

    Raises:
      UserError: for an option that DecoderConfig does not have, by its name.
    """
    kinds = {"gemma": _first, "gemma2": _second, "gemma3_text": _third, "gemma3": _seeing}
    return kinds[found["model_type"]](found)


def _gemma(found: Mapping[str, Any], *, rope: bool = True, **changes: Any) -> DecoderConfig:
    """What all of them share: (1 + scale) in norms, scaled embeddings, GeGLU by tanh."""
    # The first releases say "gelu" and mean its tanh form.
    named = {name: found.get(name) for name in ("hidden_activation", "hidden_act")}
    act = agree({n: "gelu_pytorch_tanh" if a == "gelu" else a for n, a in named.items()})
    act = act or "gelu_pytorch_tanh"
    found = {"head_dim": 256} | dict(found) | {"hidden_act": act}
    biased = flag(found, "attention_bias", False)
    arguments = decoders.shared(found, tied=True, rope=rope) | changes
    return DecoderConfig(
        **arguments,
        norm_offset=True,
        scale_embeddings=True,
        attention_bias=biased,
        out_bias=biased,
    )


def _first(found: Mapping[str, Any]) -> DecoderConfig:
    decoders.check_options(found, ["attention_bias", "hidden_activation"], _FIXED)
    return _gemma(found)


def _second(found: Mapping[str, Any]) -> DecoderConfig:
    read = ["attention_bias", "hidden_activation", "attn_logit_softcapping", *_LAYERS]
    # A window's size under the name that no released code reads.
    decoders.check_options(found, read, _FIXED | {"sliding_window_size": (_window(found),)})
    return _gemma(
        found,
        attention_softcap=found.get("attn_logit_softcapping", 50.0),
        logits_softcap=found.get("final_logit_softcapping", 30.0),
        **_layers(found, None, 2),
    )


def _third(found: Mapping[str, Any]) -> DecoderConfig:
    periods = ["sliding_window_pattern", "_sliding_window_pattern"]
    read = ["attention_bias", "hidden_activation", "rope_local_base_freq", *periods, *_LAYERS]
    # `transformers` reads this cap and does not apply it; no published model sets it.
    decoders.check_options(found, read, _FIXED | {"attn_logit_softcapping": (None,)})
    found = _THIRD | dict(found)
    period = agree({name: integer(found, name) for name in periods})
    return _gemma(
        found,
        rope=False,
        qk_norm=True,
        logits_softcap=found.get("final_logit_softcapping"),
        **_layers(found, period, 6),
        **_two_ropes(found),
    )


def _seeing(found: Mapping[str, Any]) -> DecoderConfig:
    decoders.check_options(found, _EYES, {})
    if "text_config" not in found:
        raise UserError("config.json of a gemma3 model lacks text_config")
    inner = found["text_config"]
    if not isinstance(inner, Mapping):
        raise UserError("config.json: text_config is no object")
    outer = {n: v for n, v in found.items() if n in decoders.READ and v is not None}
    for name, value in outer.items():
        agree({name: value, f"text_config.{name}": inner.get(name)})
    outside = sorted(set(outer) - set(inner) - {"tie_word_embeddings"})
    if outside:
        raise UserError(
            f"config.json says {outside[0]} outside of text_config, where nothing reads it: move "
            "it there, or delete it"
        )
    tied = {n: v for n, v in outer.items() if n == "tie_word_embeddings"}
    return _third(tied | dict(inner) | {"model_type": "gemma3_text"})


def _window(found: Mapping[str, Any]) -> int:
    return integer(found, "sliding_window") or 4096


def _layers(found: Mapping[str, Any], stated: int | None, usual: int) -> dict[str, Any]:
    """Kinds of layers (the last of a period is global, where not stated) and the query's scale.

    Args:
      found: config.json.
      stated: the period that it says, if it says one.
      usual: the period otherwise.
    """
    period = stated or usual
    counted = [
        "sliding_attention" if (i + 1) % period else "full_attention"
        for i in range(min(integer(found, "num_hidden_layers") or 0, decoders.DEEPEST))
    ]
    # A period beside layer_types is what their default was counted with, and files keep it.
    return {
        "layer_pattern": decoders.pattern(found.get("layer_types") or counted),
        "sliding_window": _window(found),
        "query_pre_attn_scalar": found.get("query_pre_attn_scalar", 256),
        "post_norms": True,
    }


def _two_ropes(found: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary positions of global and of local layers; only those of global ones are scaled."""
    stated = found.get("rope_parameters") or {}
    if not isinstance(stated, Mapping):
        raise UserError(f"config.json says rope_parameters={stated!r}: it is an object")
    both = ("rope_scaling", "rope_parameters")
    whole = decoders.one_rotary(found, both, "rope_theta", 1_000_000.0, "full_attention")
    near = decoders.one_rotary(
        found, both[1:], "rope_local_base_freq", 10_000.0, "sliding_attention"
    )
    if scaled := near["rope_scaling"]:
        raise UserError(f"config.json: rope_type {scaled.kind!r} of sliding_attention is not built")
    if set(stated) - set(decoders.KINDS):
        wrong = ", ".join(sorted(set(stated) - set(decoders.KINDS)))
        raise UserError(f"config.json: rope_parameters of {wrong} are of no kind of layer")
    return whole | {"rope_local_theta": near["rope_theta"]}


FAMILY = Family(
    model_types=("gemma", "gemma2", "gemma3_text", "gemma3"),
    config=config,
    rules=decoders.rules,
    unused=(r"(^|\.)vision_tower\.", r"(^|\.)multi_modal_projector\."),
    **decoders.SHARED,
)
