"""Reads a small published-style folder into parameters, and writes one with weights worth testing.

The folders are what transformers saves, so that names, prefixes and config.json are the real ones.
"""

import json
import pathlib
import shutil
from typing import Any

import numpy as np

GOLDENS = pathlib.Path(__file__).parent / "goldens"


def read_config(folder: pathlib.Path) -> dict[str, Any]:
    """config.json."""
    return json.loads((folder / "config.json").read_text())


def golden(name: str) -> tuple[pathlib.Path, dict[str, np.ndarray]]:
    """(folder, arrays) of a case."""
    folder = GOLDENS / name
    with np.load(folder / "golden.npz", allow_pickle=False) as arrays:
        return folder, dict(arrays)


def close(got: Any, want: Any) -> None:
    """Outputs in float32: 1e-4 absolute."""
    np.testing.assert_allclose(np.asarray(got), want, rtol=0, atol=1e-4)


def close_gradients(got: Any, want: Any) -> None:
    """Gradients: 1e-3 relative to the largest."""
    np.testing.assert_allclose(np.asarray(got), want, rtol=0, atol=1e-3 * np.abs(want).max())


def randomise(model: Any, seed: int) -> Any:
    """A torch model with no weight at a special value: norms around 1, all else around 0."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = 0.2 * torch.randn(weight.shape, generator=generator)
            is_scale = name.lower().endswith("norm.weight")
            weight.copy_(noise + (1.0 if is_scale else 0.0))
    return model.eval()


def save(name: str, model: Any, outputs: dict[str, Any]) -> None:
    """Writes a case: config.json, model.safetensors, golden.npz (with the version's name)."""
    import transformers

    folder = GOLDENS / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    for file in folder.glob("generation_config.json"):
        file.unlink()
    version = np.array(transformers.__version__)
    np.savez_compressed(folder / "golden.npz", transformers=version, **outputs)
