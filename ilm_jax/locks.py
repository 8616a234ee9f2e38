"""One folder, one writer: a second process is refused as long as the first one lives.

The lock is a small file in the folder (or an object in the bucket) that says who writes. It is only
ever exchanged by "write this if it is still what I read", which TensorStore does by file locks on a
file system and by generations in a bucket, so of several processes one gets it. Whether a holder
lives is judged without any clock's time of day: on the same machine by its process, elsewhere by
its counter, which it raises several times within its lease. A counter that has stood still for a
whole lease, by the clock of the one who waits, is a dead process'.
"""

import contextlib
import dataclasses
import fcntl
import itertools
import json
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ilm_jax.errors import UserError
from ilm_jax.files import expanded, folder_path, is_remote, is_there, trouble
from ilm_jax.lock_holder import Holder

if TYPE_CHECKING:
    import tensorstore

NAME = ".writer.json"
LEASE = 45.0  # seconds without a sign of life after which a process elsewhere is taken for dead
BEATS = 6  # signs of life within a lease
SCHEMES = ("gs", "s3", "file")  # of buckets in which an object can be written on a condition
_DYING = 0.8  # seconds that a process which was just killed takes to end
_ANSWER = 120.0  # seconds that storage has to answer
_held: set[str] = set()  # folders that this process writes


@contextlib.contextmanager
def one_writer(
    folder: str | os.PathLike,
    what: str,
    *,
    lease: float = LEASE,
    beside: bool = False,
    on_sigterm: bool = True,
) -> Iterator[None]:
    """Holds the lock of a folder, or of a file, within its block.

    Args:
      folder: made if absent; may be gs://… Of a run's processes only the first one may ask.
      what: who writes, for the message to the others, such as "ilm train".
      lease: seconds; those who wait go by the lease of the one who holds.
      beside: the lock lies beside `folder`, which may be a file or not be there yet.
      on_sigterm: release when SIGTERM ends the process; not where something else handles it.

    Raises:
      UserError: if another process writes there, or the lock cannot be written.
    """
    scheme = os.fspath(folder).partition("://")[0]
    if is_remote(folder) and scheme not in SCHEMES:
        print(
            f"{folder}: {scheme}:// has no locks: that nobody else writes there is not checked",
            file=sys.stderr,
            flush=True,
        )
        yield
        return
    made = _missing(folder)
    where = _place(folder, beside)
    if where in _held:  # this very process
        yield
        return
    lock = _Lock(where, expanded(folder), what, lease)
    lock.take()
    _held.add(where)
    beating = threading.Thread(target=lock.beat, name=f"lock of {folder}", daemon=True)
    beating.start()
    try:
        with _released_by_sigterm(lock) if on_sigterm else contextlib.nullcontext():
            yield
    finally:
        lock.release()
        beating.join()
        _held.discard(where)
        for empty in made:  # nothing was written after all
            with contextlib.suppress(OSError):
                empty.rmdir()


@contextlib.contextmanager
def taking_turns(path: str | os.PathLike) -> Iterator[None]:
    """One process of this machine at a time holds the file; the others wait.

    For work that the next process finds done, such as preparing data. The lock goes when its
    process does.
    """
    file = pathlib.Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _missing(folder: str | os.PathLike) -> list[pathlib.Path]:
    """The folder and those above it that are not there yet, innermost first."""
    if is_remote(folder):
        return []
    path = folder_path(folder)
    return list(itertools.takewhile(lambda at: not is_there(at), (path, *path.parents)))


def _place(folder: str | os.PathLike, beside: bool) -> str:
    """Path of the lock; the same for all names of a folder."""
    if is_remote(folder):
        text = os.fspath(folder).rstrip("/")
        return f"{text}{NAME}" if beside else f"{text}/{NAME}"
    path = folder_path(folder)
    inside = path.parent if beside else path
    try:
        inside.mkdir(parents=True, exist_ok=True)
        real = inside.resolve()
    except (OSError, RuntimeError) as error:
        told = trouble(error) or f"{inside}: {error}"
        raise UserError(told) from error
    return str(real / (f".{path.name[:60]}{NAME}" if beside else NAME))


class _Lock:
    def __init__(self, where: str, folder: str, what: str, lease: float) -> None:
        self._folder, self._where, self._lease = folder, where, lease
        self._store, self._key = _open(where)
        self._holder = Holder.of_this_process(what, lease)
        self._generation: bytes | None = None
        self._guard, self._ended = threading.RLock(), threading.Event()

    def take(self) -> None:
        """Takes the lock, from a dead holder too; UserError if the holder lives."""
        waited, told, begun = _Watch(), False, time.monotonic()
        while True:
            content, generation = self._read()
            holder = Holder.parse(content) if content is not None else None
            lives = holder.lives() if holder else None
            if content is None or lives is False:
                if self._swap(self._text(), generation):
                    return
                waited = _Watch()
                continue
            if lives and time.monotonic() - begun < _DYING:
                time.sleep(0.05)
                continue
            if lives or waited.changed(content):
                raise UserError(self._refusal(holder))
            lease = holder.lease if holder else self._lease
            left = lease - waited.unchanged(content)
            if left <= 0:
                if self._swap(self._text(), generation):
                    return
                waited = _Watch()
                continue
            if not told:
                who = holder or "another process"
                print(
                    f"{self._folder} was written by {who}: waiting at most {left:.0f} s for a "
                    "sign of its life",
                    file=sys.stderr,
                    flush=True,
                )
                told = True
            time.sleep(min(left, lease / BEATS / 2))

    def beat(self) -> None:
        """Raises the counter until the lock is released; ends the process if it is another's."""
        while not self._ended.wait(self._lease / BEATS):
            with self._guard:
                if self._ended.is_set():
                    return
                if not is_remote(self._where) and not os.path.isdir(os.path.dirname(self._where)):
                    continue  # the folder was removed, and does not come back
                self._holder.beat += 1
                try:
                    lost = not self._swap(self._text(), self._generation) and not self._regained()
                except UserError:
                    continue  # a full disk or a broken network is not a lost lock
            if lost:
                print(
                    f"ilm: error: {self._folder} is written by another process, since this one "
                    f"gave no sign of life for {self._lease:.0f} s: it ends",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(2)  # nothing more may be written, not even a checkpoint

    def release(self) -> None:
        """Removes the lock, if it is ours."""
        self._ended.set()
        with self._guard, contextlib.suppress(UserError):
            if not self._swap(None, self._generation) and self._regained():
                self._swap(None, self._generation)

    def _regained(self) -> bool:
        """Whether the lock is ours all the same: an answer was lost, or the file was removed."""
        content, generation = self._read()
        holder = Holder.parse(content) if content is not None else None
        if content is None:
            return self._ended.is_set() or self._swap(self._text(), generation)
        if holder is None or holder.nonce != self._holder.nonce:
            return False
        self._generation = generation
        return True

    def _text(self) -> bytes:
        return (json.dumps(dataclasses.asdict(self._holder), indent=1) + "\n").encode()

    def _read(self) -> tuple[bytes | None, bytes | None]:
        with _one_line(self._folder):
            found = self._store.read(self._key).result(timeout=_ANSWER)
            value = None if found.state == "missing" else bytes(found.value)
            return value, found.stamp.generation

    def _swap(self, content: bytes | None, generation: bytes | None) -> bool:
        """Writes (None: removes) if the lock is still of this generation."""
        with _one_line(self._folder):
            stamp = self._store.write(self._key, content, if_equal=generation).result(
                timeout=_ANSWER
            )
        if not stamp.generation:
            return False
        self._generation = stamp.generation
        return True

    def _refusal(self, holder: Holder | None) -> str:
        who = holder or "another process"
        end = f"kill {holder.pid} on {holder.host}" if holder else "its own terminal"
        return (
            f"{self._folder} is being written by {who}: wait until it has ended, end it ({end} "
            "lets training save first), or name another folder"
        )


class _Watch:
    """How long a content has stood still, by this machine's clock without a time of day."""

    def __init__(self) -> None:
        self._first: bytes | None = None
        self._since = time.monotonic()

    def changed(self, content: bytes) -> bool:
        """Whether it is another than the first one."""
        if self._first is None:
            self._first, self._since = content, time.monotonic()
        return content != self._first

    def unchanged(self, content: bytes) -> float:
        """Seconds; 0 after a change."""
        return 0.0 if self.changed(content) else time.monotonic() - self._since


def _open(where: str) -> tuple["tensorstore.KvStore", str]:
    """(TensorStore's key-value store of the lock's folder, the lock's key)."""
    import tensorstore

    folder, _, name = where.rpartition("/")
    spec = f"{folder}/" if is_remote(where) else {"driver": "file", "path": f"{folder}/"}
    with _one_line(folder):
        return tensorstore.KvStore.open(spec).result(timeout=_ANSWER), name


@contextlib.contextmanager
def _one_line(folder: str) -> Iterator[None]:
    """TensorStore's errors are ValueErrors of many lines."""
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        reason = str(error).split(" [")[0] or f"no answer within {_ANSWER:.0f} s"
        raise UserError(
            f"{folder}: no lock can be written there ({' '.join(reason.split())[:300]}): make it "
            "writable, or name another folder"
        ) from error


@contextlib.contextmanager
def _released_by_sigterm(lock: _Lock) -> Iterator[None]:
    """SIGTERM ends the process as it did, after the lock is released."""
    if threading.current_thread() is not threading.main_thread() or (
        signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return

    def end(number: int, _: object) -> None:
        """Releases the lock, then dies of the signal as if none had been caught."""
        lock.release()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
