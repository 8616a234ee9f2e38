"""Cases of one test that are run with the slow ones: another case stands for them every day."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but_for(cases: Iterable[Any], *kept: Any) -> list[Any]:
    """The cases in their order; all but those kept are marked slow."""
    return [case if case in kept else pytest.param(case, marks=pytest.mark.slow) for case in cases]
