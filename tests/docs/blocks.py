"""The blocks of commands and programs that the pages hold, and which of them are to be run."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)
_MARK = re.compile(r"<!-- run(?:: (slow|fails))? -->")
_FENCE = re.compile(r"```(\w*)\s*$")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
      page: relative to the project.
      line: of its first line.
      language: behind the fence; "" for none.
      mark: "" if nothing marks it; "quick", "slow" or "fails" if it is to be run.
      text: without the fences.
    """

    page: str
    line: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Of a shell block: one line each, continuations joined, comments left out."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines())
        return [line for line in lines if line]


def blocks_of(page: pathlib.Path) -> Iterator[Block]:
    """All fenced blocks of a page, in their order.

    Raises:
      ValueError: for a mark that stands before no block.
    """
    mark, inside = "", None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if inside is not None:
            if line.rstrip() == "```":
                start, language, body = inside
                name = str(page.relative_to(ROOT))
                yield Block(name, start, language, mark, "\n".join(body))
                mark, inside = "", None
            else:
                inside[2].append(line)
        elif found := _FENCE.match(line):
            inside = (number + 1, found[1], [])
        elif found := _MARK.fullmatch(line.strip()):
            mark = found[1] or "quick"
        elif line.strip() and mark:
            raise ValueError(f"{page}:{number}: a block must follow the mark")


def all_blocks() -> list[Block]:
    """The blocks of all pages."""
    return [block for page in PAGES for block in blocks_of(page)]
