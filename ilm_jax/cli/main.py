"""`ilm VERB …`: finds the verb's module and turns expected errors into one line."""

import functools
import importlib
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence

VERBS = {
    "train": "train one stage from gin recipes",
    "evaluate": "measure a trained run on held-out items and users",
    "infer": "answers of a trained run to the prompts of a file or a task",
    "chat": "talk with a trained run: items by title, history, critique, recommendation",
    "demo": "a page to talk to a trained run, on this machine (extra `demo`)",
    "export": "a trained run's decoding as a file that jax alone runs",
    "generate": "have a corpus' target texts written by a language model",
    "compare": "two evaluations figure by figure: differences, intervals, ties",
    "fit_cf": "fit collaborative-filtering vectors for items and users",
    "semantic_ids": "codes of items, quantised from their vectors, for semantic ids",
    "candidates": "lists of items to rank, fixed in a file",
    "precompile": "compile a recipe for its TPU pod, without one: memory, FLOPs, limits",
    "doctor": "versions, devices, mesh and folders, with remedies",
    "convert": "a published model into a frozen checkpoint, or a run back out",
    "inspect": "what a dataset holds; tasks, mixtures and how their examples look",
    "cache_tasks": "prepare a dataset: catalogue, tokenizer, task caches",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb. Returns the exit code: 0, 2 for wrong input, 130 for an interrupt."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    verb, rest = argv[0], argv[1:]
    if verb not in VERBS:
        print(
            f"ilm: error: no verb {verb!r}{_hint(verb)}; `ilm --help` lists them", file=sys.stderr
        )
        return 2
    if importlib.util.find_spec("ilm_jax.tasks") is None:
        print(
            "ilm: error: ilm_jax.tasks is not importable: an installed wheel is shadowed by the "
            "checkout in the current folder; run from another folder, or `pip install -e .` here",
            file=sys.stderr,
        )
        return 2
    from ilm_jax.cli.kept_programs import keep_programs
    from ilm_jax.errors import UserError

    _quiet_libraries()
    if verb != "precompile":  # what compiling takes is among its results
        keep_programs()
    try:
        _find_modules_here()
        rest = _import_modules(rest)
        return importlib.import_module(f"ilm_jax.cli.{verb}").main(rest) or 0
    except UserError as error:
        print(f"ilm: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ilm: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        from ilm_jax.files import trouble

        told = trouble(error) or _out_of_memory(error)
        if told is None:
            raise
        print(f"ilm: error: {told}", file=sys.stderr)
        return 2


def _out_of_memory(error: Exception) -> str | None:
    """What a device lacked, in a line with what to do; None for any other error."""
    asked = re.search(r"RESOURCE_EXHAUSTED.*?(\d+) bytes", str(error), re.DOTALL)
    if asked is None:
        return None
    from ilm_jax.training.fitting import ADVICE

    return f"not enough memory: {int(asked[1]) / 2**30:.1f} GiB were asked for at once; {ADVICE}"


def _find_modules_here() -> None:
    """Modules of the current folder are found last, in a recipe's imports too."""
    if "" not in sys.path and not any(map(_is_here, sys.path)):
        sys.path.append("")


def _import_modules(words: Sequence[str]) -> list[str]:
    """Imports what `--import=MODULE` names, which may register what it adds; the other words.

    A path that ends in ".py" is a module, too. Raises UserError for one that cannot be imported.
    """
    from ilm_jax import user_modules

    rest = []
    for word in words:
        option, _, module = word.partition("=")
        if option != "--import":
            rest.append(word)
            continue
        user_modules.load([module])
    return rest


def _is_here(folder: str) -> bool:
    return os.path.abspath(folder) == os.getcwd()


def _quiet_libraries() -> None:
    """What orbax and its threads log beside what they raise, people cannot act on."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for name in ("excepthook", "unraisablehook"):
        hook = getattr(sys, name)
        if getattr(hook, "func", None) is not _without_echoes:
            setattr(sys, name, functools.partial(_without_echoes, hook))


def _without_echoes(hook: Callable[..., None], *args: object) -> None:
    """A write that failed is reported once; what its fellows meet afterwards is its echo."""
    error = args[1] if len(args) > 1 else getattr(args[0], "exc_value", None)
    if str(error) != "Event loop is closed":
        hook(*args)


def _usage() -> str:
    width = max(map(len, VERBS))
    lines = [f"  ilm {verb:<{width}}  {text}" for verb, text in VERBS.items()]
    end = "Every verb takes --import=MODULE: a module of yours that registers what it adds."
    head = "usage: ilm VERB [flags]   (`ilm VERB --help` for its flags)"
    return "\n".join([head, "", *lines, "", end])


def _hint(verb: str) -> str:
    import difflib

    close = difflib.get_close_matches(verb, VERBS, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


if __name__ == "__main__":
    sys.exit(main())
