"""Eight virtual CPU devices and compiled programs to share; must be set before JAX starts."""

import atexit
import os
import pathlib
import shutil
import sys
import tempfile

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
_FLAGS = ["--xla_force_host_platform_device_count=8"]
# Compiling is most of the time: programs here run once or a few times, on a few numbers. Without
# XLA's dear passes and the emitters of fusions it takes a third. ILM_TESTS_COMPILE=full compiles as
# users' runs do.
if os.environ.get("ILM_TESTS_COMPILE") != "full":
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
for _flag in _FLAGS:
    if _flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_flag}".strip()
# What is dear to make and the same for many tests (compiled programs, the toy caches) stands
# in one folder of the session: workers inherit it.
if "ILM_TESTS_SHARED" not in os.environ:
    os.environ["ILM_TESTS_SHARED"] = tempfile.mkdtemp(prefix="ilm-tests-")
    atexit.register(shutil.rmtree, os.environ["ILM_TESTS_SHARED"], ignore_errors=True)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["ILM_TESTS_SHARED"] + "/compiled"
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.03"


# Two workers take a file at a time, in this order: who makes the shared caches first, beside it
# what needs none, then the long files, so that no worker is left with one at the end.
_FIRST = (
    "data/test_no_leak.py",
    "parity",
    "models",
    "training",
    "cli",
    "docs",
    "checkpoints",
    "examples",
    "cf",
)


def pytest_collection_modifyitems(items):
    """Files that take long come first."""

    def rank(item):
        path = item.path.relative_to(pathlib.Path(__file__).parent).as_posix()
        return next((k for k, first in enumerate(_FIRST) if path.startswith(first)), len(_FIRST))

    items.sort(key=rank)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Programs that stay loaded had a process at six gigabytes by the end of the suite."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="module", autouse=True)
def _forget_recipes():
    """Gin keeps the last recipe of the process: a file's tests must not see another file's."""
    yield
    if "gin" in sys.modules:
        sys.modules["gin"].clear_config()
