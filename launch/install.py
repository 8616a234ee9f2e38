"""Installs packages as `pip install` does, in a third of its time where uv is at hand.

    python launch/install.py WORDS…

uv reads none of pip's settings, so they are said to it: indices, links, constraints, certificates.
A setting that uv has no word for, or whatever uv cannot do, leaves the work to pip.
"""

import ast
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping

PIP = [sys.executable, "-m", "pip"]
QUIET = ["--quiet", "--disable-pip-version-check", "--no-compile"]
# Settings of pip that name what is installed, and uv's words for them; each may hold several.
WORDS = {
    "constraint": "--constraint",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "index-url": "--default-index",
    "trusted-host": "--allow-insecure-host",
}
# Those that uv has as variables.
VARIABLES = {"cert": "SSL_CERT_FILE", "default-timeout": "UV_HTTP_TIMEOUT"}
# Those that change nothing of what is installed.
HARMLESS = {
    *("cache-dir", "disable-pip-version-check", "no-cache-dir", "no-color", "no-compile"),
    *("no-input", "no-warn-script-location", "progress-bar", "quiet", "require-virtualenv"),
    *("retries", "root-user-action", "timeout", "verbose"),
}


def settings(listed: Iterable[str]) -> dict[str, str]:
    """{name: value} of pip's settings for an installation.

    Args:
      listed: lines of `pip config list`: SECTION.NAME='VALUE'. What the section `install` says goes
        before what `global` says, and a variable of the environment before both, as in pip.
    """
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed:
        where, _, value = line.partition("=")
        section, _, name = where.rpartition(".")
        if section in found and value:
            found[section][name] = str(ast.literal_eval(value))
    return {**found["global"], **found["install"], **found[":env:"]}


def for_uv(pip: Mapping[str, str]) -> tuple[list[str], dict[str, str]] | None:
    """uv's words and variables for pip's settings; None if one of them cannot be said."""
    if pip.keys() - WORDS.keys() - VARIABLES.keys() - HARMLESS:
        return None
    words = [
        word for name in WORDS for one in pip.get(name, "").split() for word in (WORDS[name], one)
    ]
    if "extra-index-url" in pip:  # pip takes the newest of all indices, uv that of the first
        words += ["--index-strategy", "unsafe-best-match"]
    return words, {VARIABLES[name]: pip[name] for name in VARIABLES if name in pip}


def _uv(words: list[str]) -> bool:
    """Whether uv installed it all."""
    beside = pathlib.Path(sys.executable).parent / "uv"
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        return False
    listed = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=False)
    said = for_uv(settings(listed.stdout.splitlines()))
    if listed.returncode or said is None:
        return False
    command = [uv, "pip", "install", "--quiet", "--python", sys.executable, *said[0], *words]
    done = subprocess.run(command, env={**os.environ, **said[1]}, capture_output=True, check=False)
    return not done.returncode


def main(words: list[str]) -> int:
    """Installs; returns pip's exit code, 0 if uv did it."""
    if _uv(words):
        return 0
    return subprocess.run([*PIP, "install", *QUIET, *words], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
