"""Runs an exported folder with jax and NumPy alone: python export_reader.py FOLDER PROMPTS OUT."""

import json
import pathlib
import sys

import jax
import jax.export
import numpy as np

folder, prompts, out = map(pathlib.Path, sys.argv[1:])
manifest = json.loads((folder / "manifest.json").read_text())
function = jax.export.deserialize(bytearray((folder / "function.jaxexport").read_bytes()))
weights = {}
if manifest["weights"]:
    with np.load(folder / "weights.npz") as arrays:
        weights = {
            name: arrays[name].view(jax.numpy.dtype(dtype))
            for name, dtype in manifest["weights"].items()
        }
with np.load(prompts) as arrays:
    results = function.call(weights, {name: arrays[name] for name in manifest["prompts"]})
assert not any(name.startswith(("ilm_jax", "flax", "tests")) for name in sys.modules)
np.savez(out, **{name: np.asarray(value) for name, value in results.items()})
