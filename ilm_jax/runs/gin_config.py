"""gin in t5x's spelling, and strict: what was parsed but never consumed is an error.

gin itself accepts `BATCH_SIZ=3` (a new macro that nobody reads) and `trian/Run.seed=1` (a scope
that nobody enters) in silence. After the root object is built, every binding must have been read.
"""

import difflib
import importlib.util
import os
import pathlib
import tokenize
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import gin
from gin import config as gin_internals
from gin import config_parser
from ilm_jax.errors import SettingError, UserError

T = TypeVar("T")

MACRO = "gin.macro"
# What gin's parser, and Python's under it, raise of a text that is no configuration.
_WRONG_TEXT = (SyntaxError, ValueError, tokenize.TokenError)


def recipe_folder() -> pathlib.Path:
    """The folder of the shipped recipes (`gin/` of a checkout, ilm_jax/gin of a wheel)."""
    spec = importlib.util.find_spec("ilm_jax.gin")
    if spec is not None and spec.submodule_search_locations:
        return pathlib.Path(next(iter(spec.submodule_search_locations)))
    return pathlib.Path(__file__).parents[2] / "gin"


def build(
    root: Callable[..., T],
    files: Sequence[str],
    bindings: Sequence[str],
    search_paths: Sequence[str] = (),
    *,
    unnamed: str | None = None,
) -> T:
    """Parses recipes and bindings, builds `root` from them, and checks that all were consumed.

    Args:
      root: the class or function that gin configures and calls.
      files: recipes; found in the current folder, `search_paths` or among the shipped ones.
      bindings: "NAME=VALUE"; the recipes' imports apply to them too.
      search_paths: folders in which recipes and their includes are looked for.
      unnamed: stands for required macros without a value (folders and files that a verb which
        opens none of them can do without); None makes them an error.

    Raises:
      UserError: for a missing file, an unknown name, a required macro without a value, or a
        binding that nothing read (with the nearest name that exists).
    """
    gin.clear_config()
    # Files alone: gin's other reader takes `runs/stage0.gin` for a resource of a Python package
    # and fails wherever the current folder has a folder `runs`, or logs an error for each miss.
    gin_internals._FILE_READERS[:] = [(open, os.path.isfile)]
    for folder in [recipe_folder(), *search_paths]:
        gin.add_config_file_search_path(str(folder))
    try:
        for file in files:
            gin.parse_config_file(_existing(file, search_paths))
        _check_names(gin_internals._IMPORTS)
        # "from __gin__ import dynamic_registration" must come first.
        lines = {statement.format() for statement in gin_internals._IMPORTS}
        imports = sorted(lines, key=lambda line: ("__gin__" not in line, line))
        known = set(gin_internals._CONFIG)
        gin.parse_config([*imports, *map(_quoted, bindings)] if imports else list(bindings))
        _check_macros()
        if unnamed is not None:
            _fill_required(unnamed)
        _check_required()
        built = gin.get_configurable(root)()
    except SettingError as error:
        raise UserError(_named(error)) from error
    except UserError as error:  # gin appends call chains on further lines
        raise UserError(str(error).splitlines()[0]) from error
    except (*_WRONG_TEXT, NameError, TypeError, RuntimeError, ImportError) as error:
        raise UserError(_first_words(error)) from error
    except (OSError, AttributeError) as error:
        raise UserError(f"cannot read the recipe: {_first_words(error)}") from error
    _check_consumed(known)
    return built


def operative_config(defaults: bool = True) -> str:
    """The text of config.gin: what was consumed, defaults included; or what recipes set alone."""
    return gin.operative_config_str() if defaults else gin.config_str()


def bindings_of(text: str) -> dict[str, str]:
    """{binding: its value's text} of a configuration such as config.gin, as gin's parser reads it.

    Raises:
      UserError: if it is no configuration.
    """
    try:
        statements = list(config_parser.ConfigParser(text, _Names()))
    except _WRONG_TEXT as error:
        raise UserError(f"cannot read the configuration: {_first_words(error)}") from error
    return {
        "/".join(filter(None, (s.scope, ".".join(filter(None, (s.selector, s.arg_name)))))): repr(
            s.value
        )
        for s in statements
        if isinstance(s, config_parser.BindingStatement)
    }


class _Names(config_parser.ParserDelegate):
    """References as they are written, without what they refer to."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> str:
        """ "@name" or "@name()"."""
        return f"@{scoped_configurable_name}{'()' * evaluate}"

    def macro(self, macro_name: str) -> str:
        """ "%name"."""
        return f"%{macro_name}"


def _existing(file: str, search_paths: Sequence[str]) -> str:
    folders = [pathlib.Path("."), *map(pathlib.Path, search_paths), recipe_folder()]
    for folder in folders:
        if (folder / file).is_file():
            return str(folder / file)
    names = [str(p.relative_to(recipe_folder())) for p in recipe_folder().rglob("*.gin")]
    raise UserError(
        f"no recipe {file!r}{_nearest(file, names)}; shipped: {', '.join(sorted(names))}"
    )


def _quoted(binding: str) -> str:
    """Values that are not gin (a bare path, say) are strings, as a shell user expects."""
    name, _, value = binding.partition("=")
    if value.lstrip()[:1] in ("@", "%"):
        return f"{name.strip()} = {value}"
    try:
        gin_internals.parse_value(value)
        return f"{name.strip()} = {value}"
    except Exception:  # noqa: BLE001 - gin raises many kinds; all mean "not a gin value"
        return f"{name.strip()} = {value!r}"


def _check_names(imports: Iterable[config_parser.ImportStatement]) -> None:
    """Bindings of the command line and of config.gin see all imports at once."""
    modules: dict[str, str] = {}
    for statement in imports:
        name, module = statement.bound_name(), statement.module
        first = modules.setdefault(name, module)
        if first != module and (statement.is_from or statement.alias):
            raise UserError(
                f"the recipes import two modules as {name!r}, {first} and {module}: import yours "
                f"under another name (from … import {name} as …)"
            )


def _check_macros() -> None:
    """Each macro that is bound must be referred to somewhere: catches BATCH_SIZ=3 before a call."""
    referred = {
        name
        for values in gin_internals._CONFIG.values()
        for value in values.values()
        for name in _macros_in(value)
    }
    for scope, selector in gin_internals._CONFIG:
        if selector == MACRO and scope not in referred:
            raise UserError(f"nothing reads the macro {scope}{_nearest(scope, referred)}")


def _check_required() -> None:
    for (scope, selector), values in gin_internals._CONFIG.items():
        for name, value in values.items():
            if value is gin.REQUIRED or repr(value) == "%gin.REQUIRED":
                shown = scope if selector == MACRO else f"{selector}.{name}"
                raise UserError(f"{shown} has no value: add --gin.{shown}=…")


def _fill_required(value: str) -> None:
    for (scope, selector), values in list(gin_internals._CONFIG.items()):
        if selector == MACRO and repr(values.get("value")) == "%gin.REQUIRED":
            gin.bind_parameter(f"{scope}/{MACRO}.value", value)


def _macros_in(value: object) -> set[str]:
    if isinstance(value, dict):
        return set().union(*map(_macros_in, value.keys()), *map(_macros_in, value.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(_macros_in, value))
    text = repr(value)
    return {text[1:]} if text.startswith("%") else set()


def _named(error: SettingError) -> str:
    """The message with the name of the binding that gave the value, where one did."""
    for (scope, selector), values in gin_internals._CONFIG.items():
        name = selector.rsplit(".", 1)[-1]
        value = values.get(error.field)
        if name == error.owner and value is not None and _resolved(value) == repr(error.value):
            field = f"{'.'.join(selector.split('.')[-2:])}.{error.field}"
            bound = f"{scope}/{field}" if scope else field
            if not repr(value).startswith("%"):
                return f"{bound} = {error.value!r}: give {error.remedy}"
            macro = repr(value)[1:]
            return f"{macro} = {error.value!r}: give {error.remedy} ({macro} sets {bound})"
    return str(error).splitlines()[0]


def _resolved(value: object) -> str:
    """How a binding's value reads, macros by their values."""
    while repr(value).startswith("%"):
        value = gin_internals._CONFIG.get((repr(value)[1:], MACRO), {}).get("value")
    return repr(value)


def _check_consumed(known: set[tuple[str, str]]) -> None:
    """Every parsed binding must appear in the operative configuration."""
    operative = gin_internals._OPERATIVE_CONFIG
    scopes = {scope for scope, selector in operative if selector != MACRO}
    for (scope, selector), values in gin_internals._CONFIG.items():
        for name in values:
            used = any(
                chosen == selector
                and name in parameters
                and (not scope or active == scope or active.startswith(scope + "/"))
                for (active, chosen), parameters in operative.items()
            )
            if used:
                continue
            prefix = f"{scope}/" if scope and selector != MACRO else ""
            shown = scope if selector == MACRO else f"{prefix}{selector}.{name}"
            hint = _nearest(scope, scopes) if prefix else ""
            where = "in the recipe" if (scope, selector) in known else "on the command line"
            raise UserError(
                f"the binding {shown} {where} was never read{hint}: remove or correct it"
            )


def _nearest(word: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, [name for name in names if name], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _first_words(error: BaseException) -> str:
    """gin appends call chains on further lines; the first says what is wrong."""
    if isinstance(error, tokenize.TokenError):
        return f"a bracket or a quote is not closed by line {error.args[1][0]}"
    text = str(error)
    cause = error.__cause__
    if isinstance(cause, UserError):
        return str(cause)
    return " ".join(line.strip() for line in text.splitlines()[:3] if line.strip())
