"""Scripts of studies/ as modules."""

import importlib
import pathlib
import sys

import pytest

STUDIES = pathlib.Path(__file__).parents[2] / "studies"


@pytest.fixture
def script(monkeypatch):
    """Imports a script by its name; what it imported of that folder is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(STUDIES))
    yield importlib.import_module
    for name in [path.stem for path in STUDIES.glob("*.py")]:
        sys.modules.pop(name, None)
