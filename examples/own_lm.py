"""Uses a language model of one's own as the frozen one, of an architecture the package lacks.

Adds a family of published models, Llama-shaped under another `model_type`; then reads a folder in
Hugging Face's layout by it (here one of random weights, which stands for yours) and trains a
reader of item vectors through it for some steps: about 2 minutes on two CPU cores.

    python examples/own_lm.py [FOLDER] [--steps=20]
"""

import argparse
import json
import pathlib
import tempfile

import numpy as np
import safetensors.numpy

import ilm_jax
from ilm_jax.checkpoints.published.families import decoders, llama
from ilm_jax.checkpoints.published.rules import Family

CONFIG = {
    **{"model_type": "house_llama", "vocab_size": 1536, "num_hidden_layers": 2},
    **{"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "tie_word_embeddings": True},
}


def family_config(found):
    """A DecoderConfig; options of yours that change what is computed are translated here."""
    return llama.config({**found, "model_type": "llama"})


ilm_jax.register_language_model_family(
    Family(("house_llama",), family_config, decoders.rules, **decoders.SHARED)
)


def write_random_model(folder: pathlib.Path) -> None:
    """config.json and model.safetensors, with shapes as `torch.nn.Linear` stores them."""
    wide, mlp, keys = 64, 128, 32
    square, down = (wide, wide), (wide, mlp)
    shapes: dict = dict.fromkeys(("self_attn.q_proj", "self_attn.o_proj"), square)
    shapes |= dict.fromkeys(("self_attn.k_proj", "self_attn.v_proj"), (keys, wide))
    shapes |= dict.fromkeys(("mlp.gate_proj", "mlp.up_proj"), (mlp, wide)) | {"mlp.down_proj": down}
    shapes |= dict.fromkeys(("input_layernorm", "post_attention_layernorm"), (wide,))
    draw = np.random.default_rng(0)
    names = {f"model.layers.{n}.{name}.weight": s for n in range(2) for name, s in shapes.items()}
    names |= {"model.embed_tokens.weight": (1536, wide), "model.norm.weight": (wide,)}
    tensors = {name: draw.normal(0, 0.05, s).astype(np.float32) for name, s in names.items()}
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))


def main(folder: pathlib.Path, steps: int) -> None:
    """Converts the folder and trains stage 2 through it; the tokenizer is the dataset's own."""
    write_random_model(folder / "published")
    ilm_jax.convert(folder / "published", folder / "frozen", dtype="float32")
    table = folder / "cf.safetensors"
    ilm_jax.fit_cf("toy", output=table)
    metrics = ilm_jax.train(
        ["tiny/stage2_mlp.gin", str(folder / "frozen/model.gin")],
        bindings={"TOKENIZER": "", "TRAIN_STEPS": steps, "CF_TABLE": table},
        MODEL_DIR=folder / "run",
        LM_FROM=folder / "frozen",
    )
    print(f"validation nll {metrics['loss']:.3f} nats per token after {steps} steps")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=20)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        main(words.folder or pathlib.Path(temporary), words.steps)
