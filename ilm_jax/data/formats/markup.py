"""Text out of what was scraped from pages: no tags, no entities, never a word of a script.

Only what is markup for certain goes. `A < B`, `I <3 NY` and `Level <Up>` stay: a tag has the name
of an HTML element, and attributes, a slash, or its partner in the same text.
"""

import html
import re

_NAMES = (
    "a|abbr|address|article|aside|audio|b|big|blockquote|body|br|button|canvas|caption|center|cite|"
    "code|col|colgroup|dd|del|div|dl|dt|em|embed|fieldset|figcaption|figure|font|footer|form|"
    "h[1-6]|head|header|hr|html|i|iframe|img|input|ins|kbd|label|legend|li|link|main|map|mark|meta|"
    "nav|noscript|object|ol|option|p|param|pre|q|s|samp|script|section|select|small|source|span|"
    "strike|strong|style|sub|sup|svg|table|tbody|td|textarea|tfoot|th|thead|title|tr|tt|u|ul|var|"
    "video|wbr"
)
# What is never closed, or often is not.
_ALONE = {"br", "hr", "img", "input", "wbr", "p", "li", "tr", "td", "th", "dd", "dt"}
_ATTRIBUTES = r"""(?:\s+[\w:-]+(?:\s*=\s*(?:"[^"]*"|'[^']*'|[^\s<>"']+))?)*"""
_TAG = re.compile(rf"<(/?)({_NAMES})({_ATTRIBUTES})\s*(/?)>", re.IGNORECASE)
_CUT_OFF = re.compile(rf"<(?:{_NAMES})\s+[\w:-]+\s*=[^<>]*$", re.IGNORECASE)
_COMMENT = re.compile(r"<!--.*?(?:-->|$)|<!doctype[^>]*>", re.IGNORECASE | re.DOTALL)
_HIDDEN = re.compile(
    r"<(script|style|noscript|template)\b[^<>]*>.*?(?:</\1\s*>|$)"
    r"|<(\w+)\b[^<>]*display\s*:\s*none[^<>]*>.*?(?:</\2\s*>|$)",
    re.IGNORECASE | re.DOTALL,
)
# With its semicolon: "AT&T", "R&B" and "this&that" are no entities.
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_PROPERTIES = (
    r"(?:color|width|height|display|position|float|top|left|right|bottom|cursor|overflow|opacity|"
    r"content|clear|zoom|visibility|(?:background|margin|padding|border|font|text|line|list|max|min|"
    r"vertical|white|z|box|-webkit|-moz|-ms)(?:-[-a-z]+)?)"
)
# Rules of a style sheet: of classes, ids and @-rules, or of bare elements with a known property.
_RULES = re.compile(
    rf"(?:(?:[.#*@][\w-][^{{}};<>]{{0,200}}\{{\s*(?:[-\w]+\s*:[^{{}}]*|\s*)\}}"
    rf"|(?<!\w)(?:{_NAMES})(?:[\s,.:#>\[][^{{}};<>]{{0,200}})?\{{\s*{_PROPERTIES}\s*:[^{{}}]*\}})\s*)+"
)
_MEDIA = re.compile(r"@(?:media|import|font-face|charset|keyframes)\b[^{};]*[{;]", re.IGNORECASE)
# What scripts are made of. A sentence may have one sign; code has two, one of them strong.
_STRONG = [
    re.compile(pattern)
    for pattern in (
        r"\bfunction\s*[\w$]*\s*\(",
        r"\b(?:var|let|const)\s+[\w$]+\s*=",
        r"\bnew Date\(",
        r"\b(?:window|document|navigator|console|jQuery)\s*[.\[(]",
        r"\)\s*\{",
        r"\}\s*\)",
        r"=>\s*\{",
        r"[=!]==",
        r"\btypeof\s+\w",
        r"\btry\s*\{",
        r"\$\(['\"]",
        r"\.(?:push|when|execute|getTime|addEventListener|onload|ready)\s*[(=]",
    )
]
_WEAK = [
    re.compile(p) for p in (r"\)\s*;", r"&&|\|\|", r"\breturn\b[^.]*;", r"\w\(['\"]", r";\s*$")
]


def is_code(text: str) -> bool:
    """Whether a text is, or holds, a page's script or style sheet."""
    return _is_script(text) or bool(_RULES.search(text) or _MEDIA.search(text))


def _is_script(text: str) -> bool:
    if "getTime()" in text or "<![CDATA[" in text:
        return True
    strong = sum(bool(sign.search(text)) for sign in _STRONG)
    return strong > 1 or (strong == 1 and any(sign.search(text) for sign in _WEAK))


def suspect(text: str) -> bool:
    """Whether a text may hold markup: a quick look at its signs, before `plain`."""
    return any(sign in text for sign in "<&{;)(=")


def plain(text: str) -> str:
    """The text that a reader of the page sees, on one line with single spaces.

    Entities become characters first, since whole tags are often escaped. Hidden elements, scripts
    and styles go with all that they hold, and so do lines that are code without any tag. "" where
    nothing is left.
    """
    text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
    text = _COMMENT.sub(" ", text) if "<!" in text else text
    if "<" in text:
        text = _without_tags(_HIDDEN.sub(" ", text))
    if "{" in text and not _is_script(text):
        text = _RULES.sub(" ", text)
    if is_code(text):
        lines = [line for line in text.splitlines() if line.strip()]
        text = " ".join(line for line in lines if not _is_scrap(line))
        text = "" if is_code(text) else text
    return " ".join(text.split())


def _is_scrap(line: str) -> bool:
    """Whether a line of a text that holds code is of the code: any sign of it is enough there."""
    code = any(sign.search(line) for sign in _STRONG) or is_code(line)
    return code or not re.search(r"\w", line) or line.rstrip().endswith((";", "{", "}"))


def _without_tags(text: str) -> str:
    partners = {match[2].lower() for match in _TAG.finditer(text) if match[1]}

    def shown(match: re.Match[str]) -> str:
        """A space for what is certainly a tag; other text in angle brackets stays."""
        name = match[2].lower()
        certain = match[1] or match[3].strip() or match[4] or name in _ALONE or name in partners
        return " " if certain else match[0]

    return _CUT_OFF.sub(" ", _TAG.sub(shown, text))
