"""The tiny catalogue with two tastes."""

from tests.cf.conftest import two_tastes

__all__ = ["two_tastes"]
