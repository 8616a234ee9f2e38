"""The words after a verb: flags, gin bindings, help."""

from collections.abc import Sequence

from absl import flags as absl_flags

from ilm_jax.errors import UserError
from ilm_jax.files import expanded

# Flags of every verb that reads a dataset: {name: (default, help)}.
DATASET: dict[str, tuple[str | None, str]] = {
    "dataset": ("toy", "Dataset, such as toy, movielens/latest_small, openp5/beauty, custom."),
    "data_dir": (None, "Folder of the dataset's raw files."),
    "cache_dir": (None, "Folder of prepared data (default: $ILM_CACHE or ~/.cache/ilm_jax)."),
}


def split_bindings(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates `--gin.NAME=VALUE` words (returned without the prefix) from the others.

    Raises:
      UserError: for a binding without a value.
    """
    bindings, others = [], []
    for word in argv:
        name = word.lstrip("-")
        if word.startswith("-") and name.startswith("gin."):
            if "=" not in name:
                raise UserError(f"{word}: write it as --gin.NAME=VALUE")
            name, _, value = name.removeprefix("gin.").partition("=")
            bindings.append(f"{name}={expanded(value)}")
        else:
            others.append(word)
    return bindings, others


def parse_flags(
    flags: absl_flags.FlagValues, verb: str, argv: Sequence[str], words: Sequence[str] = ()
) -> list[str]:
    """Parses absl flags and returns the words that are none; prints the help where asked for.

    Args:
      flags: of the verb.
      verb: its name.
      argv: what stands behind it.
      words: names of the words that the verb takes, such as "RUN_A"; each must be given.

    Raises:
      UserError: for an unknown flag, a bad value, a word too many or too few.
      SystemExit: with code 0 after --help.
    """
    if any(word in ("--help", "-h", "-help") for word in argv):
        print(_help(flags, verb, words))
        raise SystemExit(0)
    try:
        # Shells leave ~ alone behind an equals sign.
        argv = [
            "=".join([name, *map(expanded, value)])
            for name, *value in (word.split("=", 1) for word in argv)
        ]
        rest = flags([f"ilm {verb}", *argv])[1:]
    except absl_flags.Error as error:
        raise UserError(f"{error}; `ilm {verb} --help` lists the flags") from error
    if len(rest) > len(words):
        extra = rest[len(words)]
        raise UserError(f"unexpected argument {extra!r}; `ilm {verb} --help` lists the flags")
    if len(rest) < len(words):
        raise UserError(f"{words[len(rest)]} is missing: ilm {' '.join([verb, *words])}")
    return rest


def _help(flags: absl_flags.FlagValues, verb: str, words: Sequence[str]) -> str:
    lines = [f"usage: {' '.join(['ilm', verb, *words])} [flags]", ""]
    own = [name for name in flags if name not in absl_flags.FLAGS and name != "undefok"]
    for name in sorted(own):
        if name in ("flagfile", "help", "helpfull", "helpshort", "helpxml"):
            continue
        flag = flags[name]
        default = "" if flag.default in (None, []) else f" (default {flag.default_as_str})"
        lines.append(f"  --{name}: {' '.join((flag.help or '').split())}{default}")
    bound = "train evaluate infer chat demo export generate precompile doctor"
    if verb in bound.split():
        lines.append("  --gin.NAME=VALUE: binds a macro or parameter of the recipe")
    return "\n".join(lines)
