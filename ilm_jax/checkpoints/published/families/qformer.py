"""A Q-Former's weights from published models: from BERT, or from BLIP-2's own Q-Former.

From BERT as BLIP-2 starts (Li et al. 2023, arXiv 2301.12597, section 3.1): the text branch, the
self-attention that both share and, as a copy, the queries' feed-forward blocks; queries,
cross-attention and the heads of the losses are fresh. From BLIP-2 in the layout of transformers'
models/blip_2/modeling_blip_2.py: whatever of that the checkpoint holds; its cross-attention reads
image features (1408 wide), so its keys and values fit only a Q-Former with that `token_dim`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from ilm_jax.checkpoints.published.families import bert
from ilm_jax.checkpoints.published.families.agreeing import agree
from ilm_jax.checkpoints.published.families.bert import (
    attention,
    check_options,
    dense,
    mlp,
    norm,
    size,
)
from ilm_jax.checkpoints.published.rules import Copy, Family, Rule
from ilm_jax.errors import UserError
from ilm_jax.models.qformer_layers import QFormerConfig
from ilm_jax.models.stacking import layer_name

# Parameters of ours that BERT has nothing for. `text_head` too where it was saved without heads.
FRESH_AFTER_BERT = (
    r"^qformer/(queries|vector_projection|vector_norm|match_head|log_temperature)/",
    r"^qformer/(text|query)_projection/",
    r"^qformer/.*/cross_attention(_norm)?/",
)
# What every BLIP-2 lacks. The text branch, the projections and `match_head` are there in its
# retrieval models alone; keys and values of cross-attention fit only with its `token_dim`.
FRESH_AFTER_BLIP2 = (r"^qformer/(vector_projection|vector_norm|text_head|log_temperature)/",)

_SIZES = {
    "embed_dim": "hidden_size",
    "num_heads": "num_attention_heads",
    "mlp_dim": "intermediate_size",
}
_BLIP2_FIXED = {"hidden_act": "gelu"}
_BLIP2_KNOWN = bert.KNOWN | {
    "cross_attention_frequency",
    "encoder_hidden_size",
    "use_qformer_text_input",
}


def family_for(found: Mapping[str, Any], target: QFormerConfig) -> Family[QFormerConfig]:
    """The rules that bring a published model's weights into a Q-Former of these sizes.

    Args:
      found: its config.json.
      target: the Q-Former; may have fewer layers, of which it takes the first.

    Raises:
      UserError: for a model of another kind, or one whose sizes are not the target's.
    """
    model_type = found.get("model_type")
    if model_type in bert_into_qformer.model_types:
        family = bert_into_qformer
    elif model_type in blip2_qformer.model_types:
        family = blip2_qformer
    else:
        raise UserError(
            f"model_type {model_type!r} has no Q-Former and is no BERT: give one of these"
        )
    there = family.config(found)
    words = size(found.get("qformer_config", found), "vocab_size")
    _check_sizes(there, target, words, queries=family is blip2_qformer)
    unused = [*family.unused]
    if target.num_layers < there.num_layers:
        deeper = "|".join(str(i) for i in range(target.num_layers, there.num_layers))
        unused.append(rf"^(qformer\.)?encoder\.layer\.({deeper})\.")
    rules = family.rules
    if family is blip2_qformer and there.token_width != target.token_width:
        rules = functools.partial(_without_image_reading, family.rules)
        unused.append(r"\.crossattention\.attention\.(key|value)\.")
    return dataclasses.replace(family, config=lambda _: target, rules=rules, unused=tuple(unused))


def _without_image_reading(
    rules: Callable[[QFormerConfig], dict[str, Rule]], config: QFormerConfig
) -> dict[str, Rule]:
    parts = ("/cross_attention/key/", "/cross_attention/value/")
    return {n: rule for n, rule in rules(config).items() if not any(part in n for part in parts)}


def _check_sizes(there: QFormerConfig, here: QFormerConfig, words: int, *, queries: bool) -> None:
    """Raises UserError where equal shapes or a cut would hide that two models differ."""
    names = [*_SIZES, "norm_eps"]
    names += ["num_queries", "cross_attention_period"] if queries else []
    for name in names:
        if getattr(there, name) != getattr(here, name):
            raise UserError(
                f"QFormerConfig.{name}={getattr(here, name)}, but the model to start from has "
                f"{getattr(there, name)}: set it to that"
            )
    for name in ("num_layers", "max_text_length"):
        if getattr(there, name) < getattr(here, name):
            raise UserError(
                f"QFormerConfig.{name}={getattr(here, name)}, but the model to start from has only "
                f"{getattr(there, name)}: set it to that or less"
            )
    if here.vocab_size not in (words, words + 1):
        raise UserError(
            f"the text's tokenizer has {here.vocab_size} ids, the model to start from {words} (and "
            "[DEC] may be one more): use that model's tokenizer"
        )


def _bert_sizes(found: Mapping[str, Any]) -> QFormerConfig:
    """Sizes of a Q-Former on this BERT; one more word, for [DEC]. `cf_dim` is the table's."""
    sizes = bert.config(found)
    return QFormerConfig(
        cf_dim=0,
        vocab_size=sizes.vocab_size + 1,
        num_layers=sizes.num_layers,
        embed_dim=sizes.embed_dim,
        num_heads=sizes.num_heads,
        mlp_dim=sizes.mlp_dim,
        max_text_length=sizes.max_text_length,
        dropout=sizes.dropout,
        norm_eps=sizes.norm_eps,
        dec_id=sizes.vocab_size,
        scan_layers=False,  # else its depth would have to suit the period
    )


def _bert_rules(config: QFormerConfig) -> dict[str, Rule]:
    """The branches of a Q-Former out of BertModel or a BERT with its language-model head."""
    head = "cls.predictions"
    table = {
        "text_embedding/token/embedding": Rule(
            "embeddings.word_embeddings.weight", rows=config.vocab_size
        ),
        "text_embedding/position/embedding": Rule(
            "embeddings.position_embeddings.weight",
            plus_row="embeddings.token_type_embeddings.weight",
            rows=config.max_text_length,
        ),
        **norm("embedding_norm", "embeddings.LayerNorm"),
        **dense("text_head/dense", f"{head}.transform.dense"),
        **norm("text_head/norm", f"{head}.transform.LayerNorm"),
        "text_head/bias": Rule(f"{head}.bias", rows=config.vocab_size),
    }
    for i in range(config.num_layers):
        ours, theirs = layer_name(i), f"encoder.layer.{i}"
        inner, output = f"{theirs}.attention.self", f"{theirs}.attention.output"
        table |= attention(f"{ours}/attention", inner, output)
        for branch in ("text_mlp", "query_mlp"):
            table |= mlp(f"{ours}/{branch}", f"{theirs}.intermediate", f"{theirs}.output")
    return table


def _blip2_sizes(found: Mapping[str, Any]) -> QFormerConfig:
    """Sizes of BLIP-2's Q-Former, from a whole model's config.json or from its own."""
    inner = found.get("qformer_config", found)
    if not isinstance(inner, Mapping):
        raise UserError("config.json: qformer_config is no object")
    for name in (*_SIZES.values(), "num_hidden_layers", "vocab_size", "encoder_hidden_size"):
        agree({name: found.get(name), f"qformer_config.{name}": inner.get(name)})
    check_options(inner, _BLIP2_FIXED, _BLIP2_KNOWN)
    # A bare Q-Former is saved without its queries; 32 is what every published one has.
    queries = found.get("num_query_tokens", 32)
    sizes: dict[str, Any] = {ours: size(inner, theirs) for ours, theirs in _SIZES.items()}
    return QFormerConfig(
        cf_dim=0,
        vocab_size=size(inner, "vocab_size"),
        num_layers=size(inner, "num_hidden_layers"),
        num_queries=queries,
        cross_attention_period=size(inner, "cross_attention_frequency"),
        token_dim=size(inner, "encoder_hidden_size"),
        max_text_length=size(inner, "max_position_embeddings"),
        projection_dim=found.get("image_text_hidden_size", 256),
        dropout=inner.get("hidden_dropout_prob", 0.1),
        norm_eps=inner.get("layer_norm_eps", 1e-12),
        scan_layers=False,
        **sizes,
    )


def _blip2_rules(config: QFormerConfig) -> dict[str, Rule]:
    """All parts of a Q-Former that some BLIP-2 checkpoint holds."""
    table = {
        "queries/embedding": Rule("query_tokens", shape=(config.num_queries, config.embed_dim)),
        "text_embedding/token/embedding": Rule(
            "embeddings.word_embeddings.weight", rows=config.vocab_size
        ),
        "text_embedding/position/embedding": Rule(
            "embeddings.position_embeddings.weight", rows=config.max_text_length
        ),
        **norm("embedding_norm", "qformer.layernorm"),
        **dense("query_projection", "vision_projection"),
        **dense("text_projection", "text_projection"),
        **dense("match_head", "itm_head"),
    }
    for i in range(config.num_layers):
        ours, theirs = layer_name(i), f"qformer.encoder.layer.{i}"
        kinds = {"attention": "attention"}
        if i % config.cross_attention_period == 0:
            kinds["cross_attention"] = "crossattention"
        for ours_kind, kind in kinds.items():
            inner, output = f"{theirs}.{kind}.attention", f"{theirs}.{kind}.output"
            table |= attention(f"{ours}/{ours_kind}", inner, output)
        table |= mlp(f"{ours}/text_mlp", f"{theirs}.intermediate", f"{theirs}.output")
        table |= mlp(f"{ours}/query_mlp", f"{theirs}.intermediate_query", f"{theirs}.output_query")
    return table


def _blip2_rename(name: str) -> str:
    """A tensor's name in a whole model, also where the Q-Former was saved alone."""
    return f"qformer.{name}" if name.startswith(("encoder.layer.", "layernorm.")) else name


def _adaptor_rules(config: QFormerConfig) -> dict[str, Rule]:
    return {
        "kernel": Rule("language_projection.weight", transposed=True),
        "bias": Rule("language_projection.bias"),
    }


def _bert_copies(config: QFormerConfig) -> list[Copy[QFormerConfig]]:
    """The words' table and bias, which BERT's head and the text head's share with the input."""
    head = "cls.predictions"
    return [
        Copy(f"{head}.decoder.weight", "embeddings.word_embeddings.weight"),
        Copy(f"{head}.decoder.bias", f"{head}.bias"),
    ]


bert_into_qformer = Family(
    ("bert",),
    _bert_sizes,
    _bert_rules,
    (r"^pooler\.", r"^cls\.seq_relationship\."),
    bert.rename,
    _bert_copies,
    bert.buffers,
)
blip2_qformer = Family(
    ("blip-2", "blip_2_qformer"),
    _blip2_sizes,
    _blip2_rules,
    # The image encoder, the language model and the way into it are not the Q-Former's.
    (r"^vision_model\.", r"^language_model\.", r"^language_projection\."),
    _blip2_rename,
    buffers=bert.buffers,
)
# BLIP-2's way into its language model, for `adaptor`; of use with that very model alone.
blip2_adaptor = Family(
    ("blip-2",), _blip2_sizes, _adaptor_rules, (r"^(?!language_projection\.)",), _blip2_rename
)
