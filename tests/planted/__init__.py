"""Plausible slips in the heart of the library, each with the tests that must notice it.

`python -m tests.planted_faults` plants them one at a time. A slip is one that a careful person
could make and overlook: it runs, and gives numbers that look right. What differs in nothing that
anybody can observe (a stop_gradient around integers, say) is no fault and does not belong here.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Fault:
    """One slip.

    Attributes:
      name: of the slip, by which `--only` finds it.
      file: where it is planted, from the top of the tree.
      old: what stands there, once.
      new: what stands there instead.
      tests: words for pytest, the narrowest that are meant to fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str
