"""T5 as the modules of T5X (minimal T5 and scalable T5) name their parameters."""

from typing import Protocol

from ilm_jax.checkpoints.published.rules import Family, Rule
from ilm_jax.errors import UserError
from ilm_jax.models.t5_layers import T5Config

EMBEDDING = "token_embedder/embedding"
HEAD = "decoder/logits_dense/kernel"


class _Shapes(Protocol):
    where: str

    def names(self) -> list[str]:
        """Every tensor's name."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without reading it."""
        ...


def config(source: _Shapes) -> T5Config:
    """Sizes, read off the tensors' shapes, since such a checkpoint says nothing else of them.

    Taken as in every published T5: max_distance 128, GELU where the feed-forward is gated (T5 1.1)
    and ReLU where it is not (T5 1.0), start token 0 and end token 1.

    Raises:
      UserError: for a checkpoint of another model.
    """
    names = set(source.names())

    def shape(name: str) -> tuple[int, ...]:
        """Shape of a tensor that every T5 has; UserError where it lacks."""
        if name not in names:
            raise UserError(f"{source.where} is no T5: it lacks {name}")
        return source.shape(name)

    def depth(stack: str) -> int:
        """Layers of "encoder" or "decoder"."""
        layers = {n.split("/")[1] for n in names if n.startswith(f"{stack}/layers_")}
        return len(layers)

    vocab, width = shape(EMBEDDING)
    own = "encoder/layers_0/relpos_bias/rel_embedding"
    table = own if own in names else "encoder/relpos_bias/rel_embedding"
    heads, buckets = shape(table)
    gated = "encoder/layers_0/mlp/wi_0/kernel" in names
    return T5Config(
        vocab_size=vocab,
        num_layers=depth("encoder"),
        num_decoder_layers=depth("decoder"),
        embed_dim=width,
        num_heads=heads,
        head_dim=shape("encoder/layers_0/attention/query/kernel")[1] // heads,
        mlp_dim=shape("encoder/layers_0/mlp/wo/kernel")[0],
        activation="gelu" if gated else "relu",
        gated=gated,
        tie_embeddings=HEAD not in names,
        position_buckets=buckets,
        layer_positions=table == own,
    )


def rules(config: T5Config) -> dict[str, Rule]:
    """{entry: rule} of such a model."""
    entries = {"embedding/embedding": Rule(EMBEDDING)}
    if not config.tie_embeddings:
        entries["head/embedding"] = Rule(HEAD, transposed=True)
    for stack, count in (("encoder", config.num_layers), ("decoder", config.decoder_layers)):
        entries[f"{stack}/final_norm/scale"] = Rule(f"{stack}/{stack}_norm/scale")
        if not config.layer_positions:
            entries[f"{stack}/positions/embedding"] = _table(stack)
        for i in range(count):
            ours, theirs = f"{stack}/layer_{i:02d}", f"{stack}/layers_{i}"
            if config.layer_positions:
                entries[f"{ours}/positions/embedding"] = _table(theirs)
            for entry, name in _layer(config, decodes=stack == "decoder").items():
                entries[f"{ours}/{entry}"] = Rule(f"{theirs}/{name}")
    return entries


def _table(scope: str) -> Rule:
    return Rule(f"{scope}/relpos_bias/rel_embedding", transposed=True)


def _layer(config: T5Config, *, decodes: bool) -> dict[str, str]:
    """{entry of a layer: tensor of a layer}."""
    blocks = {"attention": ("attention", "pre_attention_layer_norm")}
    if decodes:
        blocks = {
            "attention": ("self_attention", "pre_self_attention_layer_norm"),
            "cross_attention": ("encoder_decoder_attention", "pre_cross_attention_layer_norm"),
        }
    found = {"mlp_norm/scale": "pre_mlp_layer_norm/scale"}
    for ours, (theirs, norm) in blocks.items():
        found[f"{ours}_norm/scale"] = f"{norm}/scale"
        for name in ("query", "key", "value", "out"):
            found[f"{ours}/{name}/kernel"] = f"{theirs}/{name}/kernel"
    names = {"gate": "wi_0", "up": "wi_1"} if config.gated else {"up": "wi"}
    for ours, theirs in (names | {"down": "wo"}).items():
        found[f"mlp/{ours}/kernel"] = f"mlp/{theirs}/kernel"
    return found


# Opened by its folder's shape, not by a config.json: it has none.
FAMILY = Family(model_types=(), config=config, rules=rules)  # type: ignore[arg-type]
