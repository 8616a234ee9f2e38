"""The study as a whole, from raw data to one page: what has a receipt is not run again."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ablations
import elm_tasks
import few_texts
import few_texts_check
import item_map
import losses
import page
import real_texts
import receipts
import retention
import variations
from ablations import Ablations
from elm_tasks import ElmTasks
from few_texts import FewTexts
from losses import Losses
from real_texts import RealTexts
from retention import Retention
from study import Study
from variations import Row, Varied

# Of the rows of one world, two at a time on two cores, with stages 0 and 1; the latter by estimate.
LOSSES_SECONDS, SETTINGS_SECONDS = 1200, 3600
MAP_SECONDS = 900
# Of one row, on one core.
TASKS_SECONDS = 300
# Of one row through SmolLM2, on one core.
REAL_SECONDS, RETENTION_SECONDS = 990, 1200
# Of the smoke: one loss beside all of them, one setting beside none.
SMOKE_LOSSES, SMOKE_SETTINGS = ("all", "text"), (Row("fresh", "base"), Row("fresh", "queries-1"))


@dataclasses.dataclass(frozen=True)
class Whole:
    """The parts.

    Attributes:
      texts: where stage 1 pays, a study for each toy world.
      worlds: for the losses of stage 1.
      settings: for single settings, of the same worlds.
      tasks: ELM's, all at once, of the same worlds; the smoke has none.
      items: of which a map is drawn, if any.
      real: on written texts through a published model, a study for each seed, if there are texts.
      language: what is kept of it, if there are texts.
      output: the page.
      kept: folder of all receipts.
      smoke: a few steps of little of everything.
    """

    texts: Sequence[FewTexts]
    worlds: Sequence[Varied]
    settings: Sequence[Varied]
    tasks: Sequence[ElmTasks]
    items: Study | None
    real: Sequence[RealTexts]
    language: Retention | None
    output: pathlib.Path
    kept: pathlib.Path = receipts.FOLDER
    smoke: bool = False

    @property
    def rows(self) -> list[Row]:
        """Of the losses' study."""
        every = self.worlds[0].rows(["frozen"])
        return [row for row in every if not self.smoke or row.variation in SMOKE_LOSSES]

    @property
    def setting_rows(self) -> list[Row]:
        """Of the settings' study."""
        every = self.settings[0].rows()
        return [row for row in every if not self.smoke or row in SMOKE_SETTINGS]

    def budget(self) -> str:
        """What is still to be run and what it costs."""
        lines = [
            f"texts:  {few_texts_check.budget(self.texts, few_texts.TEXTS)}",
            _left("losses:  ", self.worlds, self.rows, LOSSES_SECONDS),
            _left("settings:", self.settings, self.setting_rows, SETTINGS_SECONDS),
        ]
        if self.tasks:
            told = few_texts_check.budget(self.tasks, [0], seconds=TASKS_SECONDS)
            lines.append(f"tasks:  {told}")
        if self.real:
            lines.append(f"real:   {few_texts_check.budget(self.real, [0], seconds=REAL_SECONDS)}")
        if self.language is not None:
            own = self.language
            names = [own.name(few_texts.Cell(0, row)) for row in retention.ROWS]
            missing = sum(receipts.read(own.receipts, name) is None for name in names)
            hours = missing * RETENTION_SECONDS / 3600
            lines.append(f"kept:   {missing} rows are left, about {hours:.1f} core hours")
        if self.items is not None and not self._is_drawn(self.items):
            lines.append(f"map:    about {MAP_SECONDS / 3600:.2f} core hours")
        return "\n".join(lines)

    def run(self) -> None:
        """Runs what has no receipt, and writes the page.

        Raises:
          UserError: as the studies, and as `page.page`.
        """
        page.check()
        drawn = self.items is None or self._is_drawn(self.items)  # opens the data: now, not last
        counts = few_texts.SMOKE if self.smoke else few_texts.TEXTS
        grid = few_texts.GRID[:1] if self.smoke else few_texts.GRID
        few_texts.measure(self.texts, counts, grid)
        variations.measure(self.worlds, self.rows)
        variations.measure(self.settings, self.setting_rows)
        if self.tasks:
            few_texts.measure(self.tasks, [0])
        if self.real:
            few_texts.measure(self.real, [0], grid if self.smoke else ())
        if self.language is not None:
            retention.measure(self.language, list(retention.ROWS))
        if self.items is not None and not drawn:
            item_map.run(self.items, self._map(self.items))
        page.write(self.output, self.kept)

    def _map(self, study: Study) -> pathlib.Path:
        return item_map.file_of(study, self.kept / item_map.FOLDER.name)

    def _is_drawn(self, study: Study) -> bool:
        return item_map.is_of(self._map(study), study)


def _left(name: str, studies: Sequence[Varied], rows: Sequence[Row], seconds: int) -> str:
    """What is left of worlds."""
    missing = [
        study
        for study in studies
        if any(receipts.read(study.receipts, study.name(row)) is None for row in rows)
    ]
    hours = len(missing) * seconds / 3600
    return f"{name} {len(missing)} of {len(studies)} worlds are left, about {hours:.1f} core hours"


def of(
    folder: pathlib.Path,
    seeds: Sequence[int],
    places: tuple[str | None, str | None],
    jobs: int,
    output: pathlib.Path | None = None,
    *,
    smoke: bool = False,
    written: Mapping[str, Any] | None = None,
) -> Whole:
    """The study in a folder.

    Args:
      folder: of everything that is trained.
      seeds: each with a toy world of its own.
      places: data_dir of a dataset of one's own, for the map of its items, and cache_dir.
      jobs: steps that run side by side.
      output: the page; None: docs/study.html.
      smoke: a few steps of little of everything; receipts and page stay in the folder.
      written: texts_file and source of `RealTexts`; None: nothing is written about data of one's
        own.
    """
    data_dir, cache_dir = places
    kept = folder / "receipts" if smoke else receipts.FOLDER
    texts = [
        few_texts.of_seed(
            seed,
            folder / "few_texts",
            "toy",
            (None, cache_dir),
            jobs,
            smoke=smoke,
            receipts=kept / few_texts.FOLDER.name,
        )
        for seed in seeds
    ]
    most = few_texts.SMOKE_STEPS if smoke else 0
    worlds, settings = (
        [
            kind.of_world(
                seed,
                folder / where.name,
                cache_dir,
                jobs=jobs,
                most_steps=most,
                receipts=kept / where.name,
            )
            for seed in seeds
        ]
        for kind, where in ((Losses, losses.FOLDER), (Ablations, ablations.FOLDER))
    )
    at = folder / elm_tasks.FOLDER.name
    tasks = [] if smoke else [ElmTasks.of_world(seed, at, cache_dir, jobs) for seed in seeds]
    items = None
    if data_dir:
        place = folder / f"map_{pathlib.Path(data_dir).name}"
        items = Study("custom", 0, place, data_dir, cache_dir, jobs, most_steps=most)
    page_at = output or (folder / "study.html" if smoke else page.OUTPUT)
    real: list[RealTexts] = []
    language: Retention | None = None
    if data_dir and written:
        own = {"data_dir": data_dir, "cache_dir": cache_dir, "jobs": jobs, "most_steps": most}
        real, language = _written(folder, seeds, kept, {**own, **written})
    return Whole(texts, worlds, settings, tasks, items, real, language, page_at, kept, smoke)


def _written(
    folder: pathlib.Path, seeds: Sequence[int], kept: pathlib.Path, own: Mapping[str, Any]
) -> tuple[list[RealTexts], Retention]:
    """The studies of written texts, whose attributes `own` are the same."""
    real = [
        RealTexts(
            "custom",
            seed,
            folder / f"real_texts/seed{seed}",
            receipts=kept / real_texts.FOLDER.name,
            **own,
        )
        for seed in seeds
    ]
    language = Retention(
        "custom",
        seeds[0],
        folder / "retention",
        receipts=kept / retention.FOLDER.name,
        passages=retention.passages_of(None),
        **own,
    )
    return real, language
