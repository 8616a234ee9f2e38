"""`ilm compare RUN_A RUN_B`: two evaluations figure by figure, paired, as a Markdown table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from ilm_jax.evaluation.figures import Paired


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_list(
        "figures", [], "Figures to compare, such as ndcg@10,nll; default: all that both have.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_float(
        "level", 0.95, "Coverage of the intervals.", lower_bound=0.5, upper_bound=0.9999,
        flag_values=values,
    )  # fmt: skip
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns the exit code.

    Raises:
      UserError: for wrong input, or two runs whose figures may not be compared.
    """
    from ilm_jax.cli.words import parse_flags

    values = _flags()
    one, two = parse_flags(values, "compare", argv, words=("RUN_A", "RUN_B"))

    from ilm_jax.errors import UserError
    from ilm_jax.evaluation import card, results
    from ilm_jax.evaluation.figures import pair_all

    first, second = results.read(one), results.read(two)
    differing = card.differences(first.record["protocol"], second.record["protocol"])
    if differing:
        raise UserError(
            "the protocols differ, so the figures may not be compared: "
            f"{'; '.join(differing)}. Evaluate both alike"
        )
    chosen = first.figures
    if values.figures:
        absent = [n for n in values.figures if not (n in first.figures and n in second.figures)]
        if absent:
            shared = [name for name in first.figures if name in second.figures]
            raise UserError(
                f"no figure {absent[0]!r} in both; they share: {', '.join(shared) or 'none'}"
            )
        chosen = {name: first.figures[name] for name in values.figures}
    print(table(one, two, pair_all(chosen, second.figures, level=values.level), values.level))
    return 0


def table(first: str, second: str, found: Sequence["Paired"], level: float) -> str:
    """The comparison in Markdown, with what the names stand for and a note on many figures."""
    share = f"{100 * level:g} %"
    lines = [
        f"A = {first}, B = {second}",
        "",
        f"| figure | units | A | B | A - B [{share}] | p | p (Holm) | |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for pair in found:
        lines.append(
            f"| {pair.name} | {pair.units} {pair.unit} | {pair.first:.4f} | {pair.second:.4f} "
            f"| {pair.difference} | {pair.p_value:.2g} | {pair.adjusted:.2g} "
            f"| {pair.verdict('A', 'B')} |"
        )
    by_chance = len(found) * (1 - level)
    lines += [
        "",
        "Paired by user or text: interval by bootstrap, p by the paired t-test (bleu: by the "
        "bootstrap).",
        f"{len(found)} figures were compared: if the runs were equal, about {by_chance:.1f} "
        f"interval{'s' if by_chance >= 1.5 else ''} of {share} would miss 0 by chance. "
        "p (Holm) allows for it.",
    ]
    return "\n".join(lines)
