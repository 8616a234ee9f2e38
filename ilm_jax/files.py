"""Atomic writes and content hashes: a reader sees a whole file or none."""

import contextlib
import errno
import hashlib
import io
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import IO, Any


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is a disk or a quota without room.

    TensorStore says it in words.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error) or "Disk quota exceeded" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_remote(path: str | os.PathLike) -> bool:
    """Whether it names a bucket (gs://…) and not this machine's file system."""
    return "://" in os.fspath(path)


def folder_path(path: str | os.PathLike) -> Any:
    """An absolute pathlib.Path, or its like for a bucket."""
    if not is_remote(path):
        return pathlib.Path(path).absolute()
    from etils import epath

    return epath.Path(os.fspath(path))


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """Opens a temporary file beside `path` and renames it onto `path` when the block succeeds.

    Args:
      path: the final file; its folder is made if absent. In a bucket (gs://…) an object appears
        whole or not at all by itself.
      mode: "w" (UTF-8 text) or "wb".

    Raises:
      Whatever the block raises; the temporary file is then removed and `path` is untouched.
    """
    if is_remote(path):
        buffer: IO = io.BytesIO() if "b" in mode else io.StringIO()
        yield buffer
        content = buffer.getvalue()  # type: ignore[attr-defined]
        target = folder_path(path)
        target.write_bytes(content if "b" in mode else content.encode("utf-8"))
        return
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_dir(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary folder that becomes `path` (replacing it) when the block succeeds."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sha256_file(path: str | os.PathLike) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a JSON-able value, independent of the order of dictionary keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
