"""The page of `Demo`, in Gradio (extra `demo`): components, and what each click calls.

Nothing leaves the machine: no analytics, no share link, system fonts, and a policy that forbids the
browser to fetch anything from elsewhere.
"""

import functools
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from ilm_jax.errors import UserError
from ilm_jax.serving.demo import WORDS, Demo, Hit, Visitor
from ilm_jax.serving.demo_html import STYLE, description, lists, safe

if TYPE_CHECKING:
    import gradio as gr

FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
HOSTS = ("127.0.0.1", "localhost")
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; worker-src 'self' blob:; frame-ancestors 'none'; form-action 'self'"
)
FIRST = "Choose what you like, or nothing, and ask for a list."
P = ParamSpec("P")
R = TypeVar("R")
Scope = MutableMapping[str, object]
Send = Callable[[Scope], Awaitable[None]]
App = Callable[[Scope, object, Send], Awaitable[None]]


class StaysHere:
    """ASGI middleware: the browser is told to fetch nothing from other hosts (`POLICY`)."""

    def __init__(self, app: App) -> None:
        """Around an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: object, send: Send) -> None:
        """Answers a request with the policy among the headers."""

        async def told(message: Scope) -> None:
            """The message, the policy among its headers."""
            if message["type"] == "http.response.start":
                headers = message.setdefault("headers", [])
                assert isinstance(headers, list)
                headers.append((b"content-security-policy", POLICY.encode()))
                headers.append((b"referrer-policy", b"no-referrer"))
            await send(message)

        await self._app(scope, receive, told)


def launch(page: "gr.Blocks", host: str, port: int) -> str:
    """Serves the page in threads of this process; returns its address.

    Args:
      page: of `build`.
      host: one of `HOSTS`.
      port: a free one.
    """
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # A page of another site that leads the browser here by a name of its own is turned away.
    known = Middleware(TrustedHostMiddleware, allowed_hosts=[*HOSTS])
    _, address, _ = page.queue(api_open=False).launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        footer_links=[],
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        app_kwargs={"middleware": [known, Middleware(StaysHere)]},
        theme=gr.themes.Soft(font=FONTS, font_mono=["ui-monospace", "monospace"]),
        css=STYLE,
    )
    return address


def build(demo: Demo, name: str) -> "gr.Blocks":
    """The page.

    Args:
      demo: what it shows.
      name: of the run, for the heading.
    """
    import gradio as gr

    catalogue = demo.catalogue
    about = f"{catalogue.num_items} items of {catalogue.name}. Nothing leaves this machine."
    with gr.Blocks(analytics_enabled=False, title=f"{name} - ilm demo") as page:
        gr.HTML(f'<div class="room"><h1>{safe(name)}</h1><p>{safe(about)}</p></div>')
        with gr.Tab("Recommend"):
            _recommending(demo)
        if demo.explains:
            with gr.Tab("Describe the unread"):
                _describing(demo)
    return page


def _room() -> "tuple[gr.Textbox, gr.Radio, gr.Radio, gr.Button, gr.Button, gr.HTML, gr.Textbox]":
    """What stands on the page: search, hits, history, two buttons, the list, and what to say."""
    import gradio as gr

    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            words = gr.Textbox(
                label="Search titles", placeholder="words of a title", elem_id="find"
            )
            hits = gr.Radio(
                [], label="Found: click to add", visible=False, elem_classes=["picks", "adds"]
            )
            history = gr.Radio(
                [],
                label="Your history, oldest first: click to take out",
                visible=False,
                elem_classes=["picks", "drops"],
            )
            with gr.Row():
                ask = gr.Button("Recommend", variant="primary", elem_id="ask", min_width=120)
                anew = gr.Button("Start anew", elem_id="anew", min_width=120)
        with gr.Column(scale=3, min_width=300):
            shown = gr.HTML(f'<p class="quiet">{FIRST}</p>', elem_id="list", min_height=60)
            wish = gr.Textbox(
                label="What is wrong with this list, or what do you wish?",
                placeholder="something darker",
                submit_btn="Say it",
                max_length=WORDS,
                elem_id="wish",
            )
    return words, hits, history, ask, anew, shown, wish


def _recommending(demo: Demo) -> None:
    import gradio as gr

    state = gr.State(None, time_to_live=6 * 3600)
    words, hits, history, ask, anew, shown, wish = _room()

    def found(text: str) -> "gr.Radio":
        """Items whose titles hold the words."""
        return _choices(demo.search(text or ""))

    def add(visitor: Visitor | None, item: str) -> list[object]:
        """An item joins the history."""
        visitor = visitor or demo.visitor()
        visitor.add(item)
        return [visitor, gr.Radio(value=None), _choices(visitor.history)]

    def remove(visitor: Visitor, item: str) -> "gr.Radio":
        """An item leaves it."""
        visitor.remove(item)
        return _choices(visitor.history)

    def recommend(visitor: Visitor | None) -> list[object]:
        """A list for the history."""
        visitor = visitor or demo.visitor()
        visitor.recommend()
        return [visitor, lists(visitor.lists)]

    def criticise(visitor: Visitor | None, critique: str) -> list[object]:
        """A list for the history and what is said."""
        visitor = visitor or demo.visitor()
        visitor.recommend(critique)
        return [visitor, lists(visitor.lists), ""]

    def clear() -> list[object]:
        """As if the page had just been opened."""
        nothing = _choices([])
        return [None, "", nothing, nothing, f'<p class="quiet">{FIRST}</p>', ""]

    quick = {"api_visibility": "private", "show_progress": "hidden"}
    model = {"api_visibility": "private", "concurrency_id": "model", "concurrency_limit": 1}
    words.input(_told(found), words, hits, trigger_mode="always_last", **quick)
    hits.input(_told(add), [state, hits], [state, hits, history], **quick)
    history.input(_told(remove), [state, history], history, **quick)
    ask.click(_told(recommend), state, [state, shown], **model)
    wish.submit(_told(criticise), [state, wish], [state, shown, wish], **model)
    anew.click(_told(clear), None, [state, words, hits, history, shown, wish], **quick)


def _describing(demo: Demo) -> None:
    import gradio as gr

    if not demo.unread:
        gr.HTML('<p class="quiet">Training read the texts of all items (HELD_OUT_ITEMS).</p>')
        return
    many = f"No training read the texts of these {len(demo.unread)} items."
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            gr.HTML(f'<p class="quiet">{many}</p>')
            words = gr.Textbox(label="Search among them", elem_id="find-unread")
            hits = _choices(demo.search_unread(""), "Click to describe", ["picks", "tells"])
        with gr.Column(scale=3, min_width=300):
            text = gr.HTML(elem_id="description", min_height=60)

    def found(text: str) -> "gr.Radio":
        """Unread items whose titles hold the words."""
        return _choices(demo.search_unread(text or ""))

    def describe(item: str) -> str:
        """An item from its vector, beside its text."""
        return description(demo.describe(item))

    quick = {"api_visibility": "private", "show_progress": "hidden"}
    words.input(_told(found), words, hits, trigger_mode="always_last", **quick)
    model = {"concurrency_id": "model", "concurrency_limit": 1}
    hits.input(_told(describe), hits, text, api_visibility="private", **model)


def _choices(
    hits: Iterable[Hit], label: str | None = None, classes: list[str] | None = None
) -> "gr.Radio":
    """Items to click; titles that are the same show their ids."""
    import gradio as gr

    hits = list(hits)
    titles = [hit.title for hit in hits]
    names = [(f"{h.title} [{h.id}]" if titles.count(h.title) > 1 else h.title, h.id) for h in hits]
    return gr.Radio(
        names,
        value=None,
        visible=bool(hits),
        **({"label": label} if label else {}),
        **({"elem_classes": classes} if classes else {}),
    )


def _told(function: Callable[P, R]) -> Callable[P, R]:
    """With what is wrong told in the page, and what is there left as it was."""

    @functools.wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> R:
        """The function, whose UserError becomes a note in the page."""
        import gradio as gr

        try:
            return function(*args, **named)
        except UserError as error:
            raise gr.Error(safe(str(error)), duration=8, print_exception=False) from error

    return call
