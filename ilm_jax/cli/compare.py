"""`ilm compare RUN_A RUN_B`: two evaluations metric by metric, paired, as a Markdown table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from ilm_jax.evaluation.reports.comparison import Paired
    from ilm_jax.evaluation.reports.results import Stored


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_list(
        "metrics",
        [],
        "Metrics to compare, such as ndcg@10,nll; default: all that both have.",
        flag_values=values,
    )
    flags.DEFINE_alias("figures", "metrics", flag_values=values)  # its name in earlier versions
    flags.DEFINE_float(
        "level",
        0.95,
        "Coverage of the intervals.",
        lower_bound=0.5,
        upper_bound=0.9999,
        flag_values=values,
    )
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns the exit code.

    Raises:
      UserError: for wrong input, or two runs whose metrics may not be compared.
    """
    from ilm_jax.cli.words import parse_flags

    values = _flags()
    one, two = parse_flags(values, "compare", argv, words=("RUN_A", "RUN_B"))

    from ilm_jax import progress
    from ilm_jax.errors import UserError
    from ilm_jax.evaluation.reports import card, results
    from ilm_jax.evaluation.reports.comparison import pair_all

    if not 0.5 <= values.level <= 0.9999:  # NaN passes the flag's own bounds
        raise UserError(f"--level={values.level}: give a number from 0.5 to 0.9999")

    first, second = results.read(one), results.read(two)
    differing = card.differences(first.record["protocol"], second.record["protocol"])
    if differing:
        raise UserError(
            "the protocols differ, so the metrics may not be compared: "
            f"{'; '.join(differing)}. Evaluate both alike"
        )
    chosen = first.metrics
    if values.metrics:
        absent = [n for n in values.metrics if not (n in first.metrics and n in second.metrics)]
        if absent:
            shared = [name for name in first.metrics if name in second.metrics]
            raise UserError(
                f"no metric {absent[0]!r} in both; they share: {', '.join(shared) or 'none'}"
                + "".join(f"; {line}" for line in left_out(first, second, absent[:1]))
            )
        chosen = {name: first.metrics[name] for name in values.metrics}
    shared = [name for name in chosen if name in second.metrics]
    advance = progress.bar("metrics", len(shared))
    unpaired: dict[str, str] = {}  # metrics that somebody names must pair
    to = None if values.metrics else unpaired
    pairs = pair_all(chosen, second.metrics, advance, to, level=values.level)
    print(table(one, two, pairs, values.level))
    asked = card.prompt_differences(first.record, second.record)
    if asked:
        print(f"\nThe models were asked differently (A and B): {'; '.join(asked)}")
    ordered = card.score_differences(first.record["protocol"], second.record["protocol"])
    if ordered:
        print(f"\nThe lists are ordered differently (A and B): {'; '.join(ordered)}")
    if not values.metrics:
        lines = [*(f"{name}: {why}" for name, why in unpaired.items()), *left_out(first, second)]
        if lines:
            print("\n".join(["", "Not compared:", *(f"- {line}" for line in lines)]))
    return 0


def left_out(first: "Stored", second: "Stored", names: Sequence[str] | None = None) -> list[str]:
    """Which metrics one of the two lacks, or both, and why.

    Args:
      first, second: the evaluations, A and B.
      names: of these metrics; None: of all that either measured or says it could not.
    """
    reasons = [stored.record["not_available"] for stored in (first, second)]
    known = [*first.metrics, *second.metrics, *reasons[0], *reasons[1]]
    lines = []
    for name in dict.fromkeys(known if names is None else names):
        told = [
            f"{reason.get(name, 'absent')} in {label}"
            for label, stored, reason in zip("AB", (first, second), reasons, strict=True)
            if name not in stored.metrics
        ]
        if told:
            lines.append(f"{name}: {', '.join(told)}")
    return lines


def table(first: str, second: str, pairs: Sequence["Paired"], level: float) -> str:
    """The comparison in Markdown, with what the names stand for and a note on many metrics."""
    share = f"{100 * level:g} %"
    lines = [
        f"A = {first}, B = {second}",
        "",
        f"| metric | units | A | B | A - B [{share}] | p | p (Holm) | |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for pair in pairs:
        lines.append(
            f"| {pair.name} | {pair.units} {pair.unit} | {pair.first:.4f} | {pair.second:.4f} "
            f"| {pair.difference} | {pair.p_value:.2g} | {pair.adjusted:.2g} "
            f"| {pair.verdict('A', 'B')} |"
        )
    by_chance = len(pairs) * (1 - level)
    lines += [
        "",
        "Paired by user or text: interval by bootstrap, p by the paired t-test (bleu: by the "
        "bootstrap).",
        f"{len(pairs)} metrics were compared: if the runs were equal, about {by_chance:.1f} "
        f"interval{'s' if by_chance >= 1.5 else ''} of {share} would miss 0 by chance. "
        "p (Holm) allows for it.",
    ]
    return "\n".join(lines)
