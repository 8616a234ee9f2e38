"""Atomic writes, content hashes, and what a file system refuses, in a line.

A reader sees a whole file or none. What could not be asked is never taken for absent.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import pathlib
import re
import secrets
import shutil
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from ilm_jax.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from etils import epath

# What a person can mend, by the number of the error.
_REMEDIES = {
    errno.ENOSPC: "make room (`df -h` and `df -i`: inodes may be short), or name another folder",
    errno.EDQUOT: "the quota is used up: make room, or name another folder",
    errno.EROFS: "name a folder on another file system",
    errno.EACCES: "change its owner or mode, or name another",
    errno.EPERM: "change its owner, mode or attributes, or name another",
    errno.ENOTDIR: "a file stands where a folder should be: move it, or name another folder",
    errno.EISDIR: "a folder stands where a file should be: move it, or name another file",
    errno.EEXIST: "a file, or a link to nothing, stands in the way: move it, or name another",
    errno.ENOTEMPTY: "another process writes there: let it end, or name another folder",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.ELOOP: "its links lead back to themselves: mend them, or name another",
    errno.ENOENT: "make it, or name another",
    errno.EIO: "the disk fails: look at the system's log",
    errno.ESTALE: "the network file system has lost it: mount it again",
}
_BUGS = (TypeError, AttributeError, NameError, LookupError, AssertionError)


def default_cache_dir() -> pathlib.Path:
    """Environment variable ILM_CACHE, or ~/.cache/ilm_jax: what can be made anew stands there."""
    return pathlib.Path(os.environ.get("ILM_CACHE") or "~/.cache/ilm_jax").expanduser()


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


def trouble(error: BaseException) -> str | None:
    """What a file system refused, in a line with what to do; None for any other error.

    Libraries wrap or reword the system's errors; their causes and their words are looked at.
    """
    found: BaseException | None = None if isinstance(error, UserError) else error
    while found is not None:
        number, name = _number(found), getattr(found, "filename", None)
        if number in _REMEDIES and (name or number != errno.ENOENT):
            where = f"{os.fsdecode(name)}: " if isinstance(name, str | bytes) else ""
            if not where and not isinstance(found, OSError):
                where = f"{' '.join(str(found).split())[:200]}: "
            return f"{where}{os.strerror(number).lower()}: {_REMEDIES[number]}"
        hidden = found.__suppress_context__ or isinstance(error, _BUGS)
        found = found.__cause__ or (None if hidden else found.__context__)
    return None


def _number(error: BaseException) -> int:
    """The system's number for an error, also where a library tells it in words; 0 for none."""
    if isinstance(error, OSError):
        return error.errno or 0
    if isinstance(error, _BUGS):
        return 0
    told = re.search(r"os_error_code='(\d+)'|\(os error (\d+)\)", str(error))
    if told:
        return int(told[1] or told[2])
    words = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG)
    return next((n for n in words if os.strerror(n) in str(error)), 0)


def is_there(path: str | os.PathLike) -> bool:
    """Whether a file or folder is there.

    `exists()` of some file systems, buckets above all, says False as well if it cannot tell.

    Raises:
      UserError: if that cannot be found out.
    """
    try:
        folder_path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except Exception as error:  # each kind of storage has errors of its own
        told = trouble(error)
        if told is None:
            reason = " ".join(str(error).split())[:200]
            told = (
                f"cannot find out whether {path} is there ({reason}): nothing was done; mend "
                "that, and try again"
            )
        raise UserError(told) from error
    return True


def is_remote(path: str | os.PathLike) -> bool:
    """Whether it names a bucket (gs://…) and not this machine's file system."""
    return "://" in os.fspath(path)


def folder_path(path: str | os.PathLike) -> "pathlib.Path | epath.Path":
    """An absolute pathlib.Path (~ is the home folder), or its like for a bucket."""
    if not is_remote(path):
        return pathlib.Path(expanded(path)).absolute()
    from etils import epath

    return epath.Path(os.fspath(path))


def expanded(path: str | os.PathLike) -> str:
    """The path with ~ as the home folder: shells leave it alone in --flag=~/folder."""
    text = os.fspath(path)
    return os.path.expanduser(text) if text == "~" or text.startswith("~/") else text


def temporary_name(path: pathlib.Path) -> pathlib.Path:
    """A name beside `path` that no other process takes, on no other host and in no container."""
    return path.with_name(f"{path.name[:40]}.tmp-{os.getpid()}-{secrets.token_hex(4)}")


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
    if path.is_symlink():  # what it leads to is written, and it stays
        path = pathlib.Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None or error.filename == str(temporary):
            error.filename, error.filename2 = str(path), None  # the name that a person knows
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_dir(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary folder that becomes `path` (replacing it) when the block succeeds."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_arrays(path: str | os.PathLike) -> "dict[str, np.ndarray]":
    """Arrays of an .npz by name, or that of an .npy under ""; without pickles.

    Raises:
      OSError: if the file is not there or cannot be opened.
      ValueError: if it is damaged. NumPy, zip and zlib have a dozen kinds of errors for
        that, down to NotImplementedError for a byte that names another compression.
    """
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {"": found}
        with found:
            return dict(found)
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def sha256_file(path: str | os.PathLike) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: object) -> str:
    """Hex SHA-256 of a JSON-able value, independent of the order of dictionary keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
