"""Repositories of the Hugging Face hub, through `huggingface_hub` and its cache.

Downloads go on where they were cut off; HF_HUB_OFFLINE, HF_HOME, HF_ENDPOINT and HF_TOKEN mean what
they mean to that library. Weights in pickles are not fetched.
"""

import functools
import re

from ilm_jax.errors import UserError

# What of a repository is read: weights in safetensors, JSON, and the tokenizer's files.
PATTERNS = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "1_Pooling/*"]
PATTERNS += ["README.md", "LICENSE*"]
# The model again in other runtimes' forms, or under its maker's own names.
OTHERS = ["consolidated*", "original/*", "onnx/*", "openvino/*", "coreml/*", "*.msgpack"]
_FORM = re.compile(
    r"(?P<repo>[\w.-]+/[\w.-]+?)(?:/(?P<file>[^@]+\.gguf))?(?:@(?P<revision>[\w./-]+))?/?"
)


@functools.lru_cache(maxsize=32)  # a run asks several times, and every time would ask the hub
def download(name: str) -> str:
    """The folder of a repository in the hub's cache, or one GGUF file of it.

    Args:
      name: "owner/name", "owner/name@revision" or "owner/name/FILE.gguf[@revision]".

    Raises:
      UserError: with what the hub says: no such repository or revision, a gated one, no network
        and nothing in the cache.
    """
    found = _FORM.fullmatch(name)
    if found is None:
        raise UserError(
            f"hf://{name}: write hf://owner/name, hf://owner/name@revision or "
            "hf://owner/name/FILE.gguf"
        )
    # Imported here: it takes a while, and other sources do without.
    import huggingface_hub
    from huggingface_hub import errors

    repo, file, revision = found["repo"], found["file"], found["revision"]
    try:
        if file:
            return huggingface_hub.hf_hub_download(repo, file, revision=revision)
        return huggingface_hub.snapshot_download(
            repo, revision=revision, allow_patterns=PATTERNS, ignore_patterns=OTHERS
        )
    except errors.GatedRepoError as error:
        raise UserError(
            f"hf://{name} is gated: accept its terms at https://huggingface.co/{repo} and log in "
            f"(`hf auth login`, or HF_TOKEN): {_said(error)}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"hf://{name}: no such repository, or a private one without HF_TOKEN: {_said(error)}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"hf://{name}: no revision {revision!r} there: {_said(error)}") from error
    except errors.LocalEntryNotFoundError as error:
        raise UserError(
            f"hf://{name}: tried the cache ({huggingface_hub.constants.HF_HUB_CACHE}), which lacks "
            f"it, and the hub, which cannot be reached or may not (HF_HUB_OFFLINE): {_said(error)}"
        ) from error
    except Exception as error:  # its transports have errors of their own
        raise UserError(f"hf://{name}: the hub says: {_said(error)}") from error


def _said(error: Exception) -> str:
    """The library's words, in one line."""
    text = " ".join(str(error).split())
    return text if len(text) < 200 else f"{text[:200]}…"
