"""One line of `ilm doctor`."""

from typing import NamedTuple


class Finding(NamedTuple):
    """How it is ("ok", "note" or "fail"), what, and what to do."""

    state: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.state:4}  {self.text}" + (f": {self.remedy}" if self.remedy else "")
