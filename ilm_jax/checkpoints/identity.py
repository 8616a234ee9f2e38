"""Whether an input is still the one that it was: by what lies at a path, not by its name."""

import hashlib
import json
import os
import pathlib
from typing import Any

from ilm_jax.checkpoints.checkpoints import Checkpoints
from ilm_jax.errors import UserError
from ilm_jax.files import folder_path, sha256_file, sha256_json
from ilm_jax.pretrained import resolve
from ilm_jax.pretrained.gguf_file import is_gguf

# Of larger files of a published model the size and both ends are read: weights that were trained
# on differ everywhere.
ENDS = 1 << 20


def identity(path: str | os.PathLike, step: int | str = "best") -> str:
    """Hex digest that tells two contents of one path apart, wherever the path lies.

    Args:
      path: a file, a run's MODEL_DIR, what `ilm convert` made, or a published model's folder or
        name (pkg://…, hf://…).
      step: of a run's checkpoint.

    Raises:
      UserError: if nothing is there.
    """
    path = resolve(path)
    folder = folder_path(path)
    if (folder / "checkpoints").is_dir():
        return _of_checkpoint(path, step)
    if not folder.exists():
        raise UserError(
            f"nothing at {path}: name a file, a run's MODEL_DIR or a published model's folder"
        )
    if is_gguf(path):
        return hashlib.sha256(f"{folder.stat().st_size}\n".encode() + _ends(folder)).hexdigest()
    if folder.is_file():
        return sha256_file(folder)
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if p.is_file() and p.name[:1] != "."):
        digest.update(f"{file.name} {file.stat().st_size}\n".encode() + _ends(file))
    return digest.hexdigest()


def of_meta(meta: dict[str, Any]) -> str:
    """Of a checkpoint, by the JSON that is stored beside its parameters."""
    told = {name: meta.get(name) for name in ("weights", "frozen", "configs", "tokenizer")}
    return sha256_json(told if told["weights"] else {**meta, "saved_at": None})


def _of_checkpoint(path: str | os.PathLike, step: int | str) -> str:
    conversion = folder_path(path) / "conversion.json"
    if conversion.exists():
        return sha256_json(json.loads(conversion.read_text())["fingerprint"])
    checkpoints = Checkpoints(path)
    try:
        return of_meta(checkpoints.meta(checkpoints.resolve(step)))
    finally:
        checkpoints.close()


def _ends(file: pathlib.Path) -> bytes:
    with file.open("rb") as stream:
        first = stream.read(ENDS)
        stream.seek(max(0, file.stat().st_size - ENDS))
        return first + stream.read()
