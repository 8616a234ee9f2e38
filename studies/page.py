"""The study as one page that needs nothing else: claims, charts of all receipts, a map of items.

    python studies/page.py [--output docs/study.html]

Verdicts and words are those of docs/claims.md; charts, tables and tests are made of the receipts in
studies/receipts, without training anything. The page loads nothing, follows the reader's choice of
light or dark, and is legible on a phone. Needs the package markdown (`pip install -e '.[docs]'`).
"""

import argparse
import importlib.util
import pathlib
import re
import sys
from collections.abc import Sequence

import page_parts
import page_real
import page_sections
import page_tasks
import receipts
from exiting import exit_code

from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write, sha256_json

ROOT = pathlib.Path(__file__).parent.parent
CLAIMS, OUTPUT = ROOT / "docs/claims.md", ROOT / "docs/study.html"


def page(kept: pathlib.Path = receipts.FOLDER) -> str:
    """The whole page.

    Args:
      kept: folder of the receipts.

    Raises:
      UserError: if a receipt is damaged, or the package markdown is not installed.
    """
    sections = [
        ("claims", "What holds", _claims()),
        ("real", "On written texts, through a published model", page_real.real_section(kept)),
        ("kept", "What language is kept", page_real.retention_section(kept)),
        ("texts", "Where stage 1 pays", page_sections.texts_section(kept)),
        ("losses", "Which of its losses pay", page_sections.losses_section(kept)),
        ("tasks", "ELM's tasks", page_tasks.tasks_section(kept)),
        ("settings", "What single settings do", page_real.ablations_section(kept)),
        ("curves", "How rows learn", page_sections.curves_section(kept)),
        ("lists", "What it recommends", page_sections.lists_section(kept)),
        ("map", "What the Q-Former makes of items", page_sections.map_section(kept)),
        ("again", "Making it again", page_sections.again_section(kept)),
    ]
    menu = " ".join(f'<a href="#{name}">{title}</a>' for name, title, body in sections if body)
    body = "\n".join(
        f'<section id="{name}"><h2>{title}</h2>\n{body}</section>'
        for name, title, body in sections
        if body
    )
    head = f'<meta name="made-from" content="{made_from(kept)}">'
    return page_parts.document(
        "Item-language models, measured",
        f"""<header>
<h1>Item-language models, measured</h1>
<p>A Q-Former turns collaborative-filtering vectors into soft tokens that a frozen language model
reads. What holds of the Item-Language Model's claims (Yang et al. 2024) on small worlds and small
models that anybody can train again: paired tests and 95 % intervals, from files that are kept with
the code.</p>
<nav>{menu}</nav>
</header>
<main>
{body}
</main>""",
        head,
    )


def write(output: pathlib.Path, kept: pathlib.Path = receipts.FOLDER) -> None:
    """Writes the page, and says where; arguments and errors as `page`."""
    whole = page(kept)
    with atomic_write(output) as stream:
        stream.write(whole)
    print(f"page {output}: {len(whole) / 1024:.0f} KiB")


def made_from(kept: pathlib.Path = receipts.FOLDER) -> str:
    """Digest of the words and the receipts that the page is made of."""
    files = [CLAIMS, page_parts.STYLE, *sorted(kept.rglob("*.json"))]
    return sha256_json([[file.name, file.read_text(encoding="utf-8")] for file in files])[:16]


def check() -> None:
    """Raises UserError unless what the page needs is installed."""
    if importlib.util.find_spec("markdown") is None:
        raise UserError("the page needs the package markdown: pip install -e '.[docs]'")


def _claims() -> str:
    """docs/claims.md without its title and what leads to other pages."""
    check()
    import markdown

    text = CLAIMS.read_text(encoding="utf-8").partition("\n")[2]
    text = re.sub(r"\nWhere each figure comes from:.*?\n\n", "\n", text, flags=re.DOTALL)
    text = re.sub(r"^(#+) ", r"#\1 ", text, flags=re.MULTILINE)
    text = re.sub(r"\[([^]]*)\]\((?!https?:)[^)]*\)", r"\1", text)
    made = markdown.markdown(text, extensions=["tables"])
    for word in ("confirmed", "refuted"):
        made = made.replace(f"<strong>{word}</strong>", f'<strong class="{word}">{word}</strong>')
    return page_parts.scrolling(made)


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="page.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT)
    flags = parser.parse_args(argv)
    return exit_code(lambda: write(flags.output), "page.py")


if __name__ == "__main__":
    sys.exit(main())
