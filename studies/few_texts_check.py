"""What is left of the study of few texts, and whether its receipts still stand."""

import dataclasses
import shutil
from collections.abc import Container, Sequence

import receipts
from few_texts import Cell, FewTexts, kept, run

from ilm_jax.errors import UserError

# Of one row, trained and evaluated, two at a time on two cores: the mean of the first receipts.
ROW_SECONDS = 90
# Of a seed's vectors and stages 0 and 1, beside other work.
BEFORE_SECONDS = 490


def budget(
    studies: Sequence[FewTexts],
    texts: Sequence[int],
    grid: Sequence[float] = (),
    seconds: int = ROW_SECONDS,
) -> str:
    """What is still to be run and what it costs, without running anything.

    Args:
      studies, texts, grid: see `few_texts.measure`.
      seconds: of one row.
    """
    cells = [Cell(count, row) for count in texts for row in studies[0].rows]
    missing = [
        [cell for cell in cells if receipts.read(study.receipts, study.name(cell)) is None]
        for study in studies
    ]
    first = studies[0]
    searched = sum(first.rated_as(cell.row) == cell.row for cell in missing[0]) * (
        len(grid or studies[0].grid) - 1
    )
    runs = searched + sum(map(len, missing))
    whole = runs * seconds + sum(map(bool, missing)) * BEFORE_SECONDS
    kept_rows = len(studies) * len(cells) - sum(map(len, missing))
    return (
        f"{len(studies)} seeds, {len(cells)} rows each: {kept_rows} have receipts, {runs} runs are "
        f"left ({searched} of them for learning rates), about "
        f"{whole / 3600:.1f} core hours"
    )


def check_rows(studies: Sequence[FewTexts], names: Sequence[str]) -> str:
    """Runs rows with receipts again, of the first seed and from its raw data on; what to print.

    In a folder of their own, which is deleted where an earlier check has ended in it.

    Raises:
      UserError: for a name that is no row's, a row without a receipt, or one that does not match.
    """
    study, rates, before = studies[0], dict[str, float](), dict[str, receipts.Receipt]()
    cells = {name: _cell(name, study.rows) for name in names}
    for name, cell in cells.items():
        receipt = receipts.read(study.receipts, study.name(cell))
        if receipt is None:
            raise UserError(
                f"{study.receipts} has no receipt of {study.name(cell)}: nothing to check"
            )
        rates[str(cell)] = float(receipt.made_from["learning rate"])
        kept(study, cell, rates[str(cell)])
        before[name] = receipt
    folder = study.folder / "check" / "+".join(map(str, cells.values()))
    if (folder / "receipts").exists():
        shutil.rmtree(folder)
    again = dataclasses.replace(
        study, folder=folder, receipts=folder / "receipts", behind=study.receipts
    )
    run(again, list(cells.values()), rates)
    told, matches = [], True
    for name, cell in cells.items():
        found = receipts.read(again.receipts, study.name(cell))
        assert found is not None
        match, lines = receipts.compared(before[name], found)
        matches &= match
        said = "matches" if match else "does not match"
        told.append("\n  ".join([f"{name} {said}:", *lines]))
    if not matches:
        raise UserError("; ".join(" ".join(line.split()) for line in told))
    return "\n".join(told)


def _cell(name: str, rows: Container[str]) -> Cell:
    """The row of a name such as 200_ilm."""
    count, _, row = name.partition("_")
    if row not in rows or not (count == "all" or count.isdecimal()):
        raise UserError(f"--check {name}: no row; give TEXTS_ROW, such as 200_ilm or all_ilm-rand")
    return Cell(0 if count == "all" else int(count), row)
