"""Lists and texts of a demo as HTML, and its style."""

import html

from ilm_jax.serving.demo import Description, Listed, Listing

STYLE = """
.gradio-container { max-width: 1120px !important; margin: 0 auto !important; }
.room h1 { font-size: 1.5rem; font-weight: 650; margin: .4rem 0 .1rem; }
.room p, .quiet { color: var(--body-text-color-subdued); margin: .1rem 0 .5rem; }
.room p, .card, .old { overflow-wrap: anywhere; }
.picks .wrap { display: flex; flex-direction: column; gap: 4px; max-height: 300px;
  overflow-y: auto; flex-wrap: nowrap; }
.picks label { width: 100%; min-height: 36px; overflow-wrap: anywhere; cursor: pointer; }
.picks input { position: absolute; opacity: 0; }
.picks label::before { color: var(--color-accent); font-weight: 700; }
.picks label:focus-within { outline: 2px solid var(--color-accent); }
.picks label.selected::before { color: inherit; }
.adds label::before { content: "+"; }
.tells label::before { content: "\\203a"; }
.drops label::before { content: "\\00d7"; }
.card { display: grid; grid-template-columns: 2.2rem 1fr auto; gap: 2px 10px; padding: 10px 12px;
  margin-bottom: 8px; border: 1px solid var(--border-color-primary); border-radius: 10px;
  background: var(--background-fill-primary); }
.card .place { font-size: 1.25rem; font-weight: 650; color: var(--color-accent); }
.card .title { font-weight: 600; }
.card .why { grid-column: 2 / 4; }
.card .score { grid-column: 2 / 4; font-size: .8rem; color: var(--body-text-color-subdued); }
.move { align-self: start; white-space: nowrap; font-size: .8rem; padding: 1px 8px;
  border-radius: 99px; border: 1px solid var(--border-color-primary); }
.move.up { color: #15803d; } .dark .move.up { color: #4ade80; }
.move.down { color: #b45309; } .dark .move.down { color: #fbbf24; }
.wish { font-style: italic; }
.old { margin-top: 12px; color: var(--body-text-color-subdued); font-size: .9rem; }
.old li { margin-left: 1.2rem; list-style: disc; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(260px, 1fr)); gap: 10px; }
.pair .card { display: block; margin: 0; } .pair h3 { font-size: .85rem; margin: 0 0 .3rem;
  color: var(--body-text-color-subdued); font-weight: 600; }
"""


def safe(text: str) -> str:
    """As words of a page: no markup, and none of the signs of Gradio's templates."""
    escaped = html.escape(text)
    return escaped.replace("$", "&#36;").replace("{", "&#123;").replace("}", "&#125;")


def lists(all_lists: list[Listing]) -> str:
    """The newest list as HTML, those before it folded below."""
    *before, newest = all_lists
    parts = []
    if newest.critique:
        parts.append(f'<p class="quiet">You said <span class="wish">{safe(newest.critique)}</span>')
        parts.append("; each item shows where it stood before.</p>")
    for place, item in enumerate(newest.items, 1):
        parts.append(_card(place, item, newest.depth))
    if before:
        parts.append('<details class="old"><summary>Lists before</summary>')
        for listing in reversed(before):
            items = "".join(f"<li>{safe(item.title)}</li>" for item in listing.items)
            said = f'<p class="wish">{safe(listing.critique)}</p>' if listing.critique else "<hr>"
            parts.append(f"{said}<ul>{items}</ul>")
        parts.append("</details>")
    return "".join(parts)


def _card(place: int, item: Listed, depth: int) -> str:
    move = _move(place, item.was, depth)
    why = f'<div class="why">{safe(item.explanation)}</div>' if item.explanation else ""
    return (
        f'<div class="card"><div class="place">{place}</div><div class="title">{safe(item.title)}'
        f"</div>{move}{why}"
        f'<div class="score">{safe(item.id)} · score {item.score:.2f}</div></div>'
    )


def _move(place: int, was: int | None, depth: int) -> str:
    if not depth:
        return "<span></span>"
    if was is None:
        return f'<span class="move up">▲ from below {depth}</span>'
    if was == place:
        return f'<span class="move">was {was}</span>'
    kind, sign = ("up", "▲") if was > place else ("down", "▼")
    return f'<span class="move {kind}">{sign} from {was}</span>'


def description(told: Description) -> str:
    """The model's text beside the catalogue's, as HTML."""
    how = "from its vector alone" if told.by_vector else "as the prompt names it"
    sign = ", ◆ its vector" if "◆" in told.prompt else ""
    return (
        f'<div class="room"><h1>{safe(told.item.title)}</h1><p>{safe(told.item.id)}</p></div>'
        f'<div class="pair"><div class="card"><h3>The model writes, {how}</h3>'
        f'<div class="text">{safe(told.text)}</div></div>'
        f'<div class="card"><h3>The catalogue says</h3>'
        f'<div class="reference">{safe(told.reference)}</div></div></div>'
        f'<p class="quiet">Asked{sign}: {safe(told.prompt)}</p>'
    )
