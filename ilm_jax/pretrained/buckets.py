"""Models in buckets (gs://…): copied to the cache of this machine, each file once."""

import contextlib
import fnmatch
import hashlib
import pathlib
import re
from typing import TYPE_CHECKING

from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write, default_cache_dir, folder_path, is_there
from ilm_jax.pretrained.hub import OTHERS, PATTERNS

if TYPE_CHECKING:
    from etils import epath

# Of one read of a bucket's file.
CHUNK_BYTES = 1 << 24


def fetch(name: str) -> str:
    """The copy of a bucket's folder or GGUF file.

    Args:
      name: behind gs://.

    A published model's files are copied, and what `ilm convert` made, whole.

    Raises:
      UserError: if nothing is there, that cannot be found out, or it is the MODEL_DIR of a run.
    """
    url = f"gs://{name.rstrip('/')}"
    if not is_there(url):
        raise UserError(f"nothing at {url}: name a folder or a FILE.gguf of a bucket")
    place = folder_path(url)
    if url.endswith(".gguf"):
        return _copied(place, _cache(url).with_suffix(".gguf"))
    folder = _cache(url)
    if is_there(f"{url}/checkpoints"):
        if not is_there(f"{url}/conversion.json"):
            raise UserError(
                f"{url} is the MODEL_DIR of a run, with all its checkpoints: copy it to a folder "
                f"of this machine (gcloud storage cp -r {url} DIR) and name that"
            )
        _copy_all(place, folder)
        return str(folder)
    wanted = [file for file in place.iterdir() if _is_wanted(file.name) and not file.is_dir()]
    if not wanted:
        raise UserError(f"{url} holds no published model: no safetensors, no JSON")
    for file in wanted:
        _copied(file, folder / file.name)
    return str(folder)


def _copy_all(source: "epath.Path", folder: pathlib.Path) -> None:
    for file in source.iterdir():
        if file.is_dir():
            _copy_all(file, folder / file.name)
        else:
            _copied(file, folder / file.name)


def _is_wanted(name: str) -> bool:
    def fits(patterns: list[str]) -> bool:
        """Whether one of the patterns matches the file's name."""
        return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)

    return fits(PATTERNS) and not fits(OTHERS)


def _cache(url: str) -> pathlib.Path:
    """A folder of the cache that no other name has."""
    short = re.sub(r"[^\w.-]+", "_", url.removeprefix("gs://"))[-60:]
    return (
        default_cache_dir() / "models" / f"{short}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
    )


def _copied(source: "epath.Path", target: pathlib.Path) -> str:
    """Copies an object unless the copy has its size and is no older."""
    stat = source.stat()
    size: int = getattr(stat, "length", None) or getattr(stat, "st_size", None) or 0
    changed: float = getattr(stat, "mtime", None) or getattr(stat, "st_mtime", None) or 0.0
    with contextlib.suppress(FileNotFoundError):
        here = target.stat()
        if here.st_size == size and here.st_mtime >= changed:
            return str(target)
    with source.open("rb") as stream, atomic_write(target, "wb") as out:
        while chunk := stream.read(CHUNK_BYTES):
            out.write(chunk)
    return str(target)
