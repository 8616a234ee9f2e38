"""The sandbox of chat templates: Jinja without files, without Python's insides, without a clock.

The environment is the one that published templates are written for (blocks trimmed, `break` and
`continue`, `raise_exception`, `strftime_now`, `{% generation %}`). A template is a download like
any other, so it is not trusted: it reads what it is given and gives back a text.
"""

import datetime
import functools
import json
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

# The date that published templates fall back to without a clock. Today's would make the bytes of a
# task cache, and what a trained model reads, depend on the day.
DATE = datetime.datetime(2024, 7, 26)
LONGEST = 1_000_000


class _NoFiles(jinja2.BaseLoader):
    """There is nothing to include, import or extend."""

    def get_source(self, environment: jinja2.Environment, template: str) -> NoReturn:
        """Raises SecurityError."""
        raise SecurityError(f"it reads the file {template!r}")


class _Generation(Extension):
    """`{% generation %} … {% endgeneration %}` marks what the assistant writes; here it is text."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[nodes.Node]:
        """The statements between the two tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    """Raises where the sandbox alone would go on with an empty value."""

    intercepted_binops = frozenset(("*", "**"))

    def unsafe_undefined(self, obj: object, attribute: str) -> NoReturn:
        """An attribute that the sandbox does not give out."""
        raise SecurityError(f"it reaches for {attribute!r} of a {type(obj).__name__}")

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> object:
        """Products that fit into memory."""
        if operator == "**":
            raise SecurityError("it takes powers")
        for side, times in ((left, right), (right, left)):
            if hasattr(side, "__len__") and isinstance(times, int) and len(side) * times > LONGEST:
                raise SecurityError(f"it makes {len(side) * times} of something")
        return super().call_binop(context, operator, left, right)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _date(form: str) -> str:
    return DATE.strftime(form)


def _json(value: object, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)


@functools.lru_cache(maxsize=16)
def compiled(source: str) -> jinja2.Template:
    """A template, ready to render; whatever Jinja raises."""
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        loader=_NoFiles(),
        extensions=[_Generation, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _json
    environment.globals.update(raise_exception=_raise, strftime_now=_date)
    return environment.from_string(source)
