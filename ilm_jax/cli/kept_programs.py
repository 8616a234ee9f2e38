"""Compiled programs are kept: the second start of a recipe compiles nothing.

It is JAX's persistent compilation cache, in a folder of `default_cache_dir()`. JAX's own variables
say otherwise: JAX_COMPILATION_CACHE_DIR names another place (a bucket, for a pod's hosts), and
JAX_ENABLE_COMPILATION_CACHE=0 keeps nothing.
"""

import contextlib
import hashlib
import importlib.util
import os
import pathlib
import platform
import sys
import zlib
from collections.abc import MutableMapping

from ilm_jax.files import default_cache_dir

# Whatever was used longest ago goes at a start that finds more.
LIMIT_BYTES = 2 << 30
PLACE, ENABLED = "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"
LEAST_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
# What compiles in less than JAX keeps by itself is most of a small run's programs.
ALL = "0"
# The first bytes of its frames (RFC 8878, section 3.1.1).
ZSTANDARD = b"\x28\xb5\x2f\xfd"


def keep_programs(environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets the variables that JAX reads when it is imported, unless they or JAX are there already.

    Args:
      environment: of this process; its children inherit it.
    """
    off = environment.get(ENABLED, "").lower() in ("0", "false", "no", "off", "n", "f")
    if "jax" in sys.modules or off or PLACE in environment:
        return
    folder = programs_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            return
        forget_broken(folder)
        forget_old(folder)
    except OSError:  # nothing is kept where nothing can be written
        return
    environment[PLACE] = str(folder)
    environment.setdefault(LEAST_SECONDS, ALL)


def programs_dir() -> pathlib.Path:
    """Where programs for this kind of machine are kept; they may not run on another processor."""
    return default_cache_dir() / "compiled" / _machine()


def forget_old(folder: pathlib.Path, limit: int = LIMIT_BYTES) -> None:
    """Deletes the files that were used longest ago, until the rest has `limit` bytes."""
    files = []
    with os.scandir(folder) as found:
        for entry in found:
            about = entry.stat()
            files.append((max(about.st_atime, about.st_mtime), about.st_size, entry.path))
    held = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if held <= limit:
            return
        pathlib.Path(path).unlink(missing_ok=True)
        held -= size


def forget_broken(folder: pathlib.Path) -> None:
    """Deletes what a killed process left half-written, among the files since the last start.

    JAX does not write an entry that is there anew, so it would complain of this one at every start.
    """
    stamp = folder / "checked"
    since = stamp.stat().st_mtime if stamp.exists() else 0.0
    stamp.touch()
    for path in folder.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another start deletes too
            if path.stat().st_mtime >= since and not _is_whole(path.read_bytes()):
                path.unlink()


def _is_whole(entry: bytes) -> bool:
    """Whether an entry can be unpacked; JAX writes Zstandard where Python has it, else zlib."""
    try:
        if not entry.startswith(ZSTANDARD):
            zlib.decompress(entry)
        elif importlib.util.find_spec("zstandard") is not None:
            zstandard = importlib.import_module("zstandard")
            zstandard.ZstdDecompressor().decompress(entry)
    except Exception:  # noqa: BLE001 - zstandard's errors have no common name without it
        return False
    return True


def _machine() -> str:
    """A name for the processor's instructions."""
    about = platform.machine()
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        about += next((x for x in lines if x.startswith(("flags", "Features"))), "")
    except OSError:  # not Linux
        about += platform.processor()
    return hashlib.sha256(about.encode()).hexdigest()[:12]
