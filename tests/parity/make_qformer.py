"""Makes goldens/qformer_*: `python -m tests.parity.make_qformer`, with torch and transformers.

Options covered: cross-attention in every layer and in every second; with text (saved as
Blip2ForImageTextRetrieval, with its heads) and without (Blip2ForConditionalGeneration); image
features wider than the Q-Former; padding.
"""

import pathlib
from typing import Any

import numpy as np

from tests.parity.folder import GOLDENS, randomise, read_config, save

# {case: (cross-attention period, with text)}
CASES = {
    "qformer_every_layer_text": (1, True),
    "qformer_every_second_text": (2, True),
    "qformer_every_layer_plain": (1, False),
    "qformer_every_second_plain": (2, False),
}
TEXT = np.array([[2, 7, 30, 11, 5, 9], [2, 19, 4, 3, 0, 0]])
IMAGES = np.random.default_rng(5).normal(size=(2, 5, 20)).astype(np.float32)


def reference(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """What transformers computes on IMAGES (and TEXT), and a gradient for the queries."""
    import torch
    import transformers

    kind = read_config(folder)["architectures"][0]
    model = getattr(transformers, kind).from_pretrained(folder).eval()
    queries = model.query_tokens.detach().requires_grad_()
    expanded = queries.expand(2, -1, -1)
    images = torch.tensor(IMAGES)
    count = queries.shape[1]
    read: dict[str, Any] = {"encoder_hidden_states": images}
    outputs = {}
    if kind == "Blip2ForImageTextRetrieval":
        text = torch.tensor(TEXT)
        visible = (text != 0).long()
        features = model.qformer(query_embeds=expanded, **read).last_hidden_state
        outputs["entity_features"] = unit(model.vision_projection(features))
        words = model.embeddings(input_ids=text)
        alone = model.qformer(query_embeds=words, query_length=0, attention_mask=visible)
        outputs["text_features"] = unit(model.text_projection(alone.last_hidden_state[:, 0]))
        both = model.embeddings(input_ids=text, query_embeds=expanded)
        seen = torch.cat([torch.ones(2, count, dtype=torch.long), visible], dim=1)
        hidden = model.qformer(
            query_embeds=both, query_length=count, attention_mask=seen, **read
        ).last_hidden_state
        outputs["match_logits"] = model.itm_head(hidden[:, :count]).mean(1)
        outputs["text_hidden"] = hidden[:, count:]
    else:
        hidden = model.qformer(query_embeds=expanded, **read).last_hidden_state
        outputs["soft_tokens"] = model.language_projection(hidden)
    outputs["query_hidden"] = hidden[:, :count]
    weights = torch.tensor(np.random.default_rng(1).normal(size=hidden.shape).astype(np.float32))
    (hidden * weights).sum().backward()
    arrays = {name: value.detach().numpy() for name, value in outputs.items()}
    return arrays | {"weights": weights.numpy(), "gradient": queries.grad[0].numpy()}


def unit(x: Any) -> Any:
    """x / |x|."""
    return x / x.norm(dim=-1, keepdim=True)


def main() -> None:
    """Writes all cases."""
    import transformers

    vision = dict(hidden_size=20, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    text = dict(hidden_size=16, ffn_dim=8, num_hidden_layers=1, max_position_embeddings=4)
    for name, (period, with_text) in CASES.items():
        config = transformers.Blip2Config(
            vision_config=vision | {"image_size": 8, "patch_size": 4},
            text_config=text
            | dict(model_type="opt", num_attention_heads=2, word_embed_proj_dim=16)
            | dict(vocab_size=10),
            qformer_config=dict(
                vocab_size=37,
                hidden_size=16,
                num_hidden_layers=2 * period,
                num_attention_heads=2,
                intermediate_size=24,
                encoder_hidden_size=20,
                cross_attention_frequency=period,
                max_position_embeddings=12,
                use_qformer_text_input=with_text,
            ),
            num_query_tokens=3,
            image_text_hidden_size=8,
        )
        kind = "Blip2ForImageTextRetrieval" if with_text else "Blip2ForConditionalGeneration"
        model = randomise(getattr(transformers, kind)(config), seed=4)
        save(name, model, {})
        save(name, model, reference(GOLDENS / name))


if __name__ == "__main__":
    main()
