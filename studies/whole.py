"""The study as a whole, from raw data to one page: what has a receipt is not run again."""

import dataclasses
import pathlib
from collections.abc import Sequence

import few_texts
import few_texts_check
import item_map
import losses
import page
import receipts
import variations
from few_texts import FewTexts
from losses import Losses
from study import Study
from variations import Row

# Of the rows of one world, two at a time on two cores, stages 0 and 1 included.
LOSSES_SECONDS = 1200
MAP_SECONDS = 900
# Of the smoke: one loss beside all of them.
SMOKE_LOSSES = ("all", "text")


@dataclasses.dataclass(frozen=True)
class Whole:
    """The parts.

    Attributes:
      texts: where stage 1 pays, a study for each toy world.
      worlds: for the losses of stage 1.
      items: of which a map is drawn, if any.
      output: the page.
      kept: folder of all receipts.
      smoke: a few steps of little of everything.
    """

    texts: Sequence[FewTexts]
    worlds: Sequence[Losses]
    items: Study | None
    output: pathlib.Path
    kept: pathlib.Path = receipts.FOLDER
    smoke: bool = False

    @property
    def rows(self) -> list[Row]:
        """Of the losses' study."""
        every = losses.rows_of(["frozen"])
        return [row for row in every if not self.smoke or row.variation in SMOKE_LOSSES]

    def budget(self) -> str:
        """What is still to be run and what it costs."""
        lines = [f"texts:  {few_texts_check.budget(self.texts, few_texts.TEXTS)}"]
        missing = [
            study
            for study in self.worlds
            if any(receipts.read(study.receipts, study.name(row)) is None for row in self.rows)
        ]
        hours = len(missing) * LOSSES_SECONDS / 3600
        lines.append(
            f"losses: {len(missing)} of {len(self.worlds)} worlds are left, about {hours:.1f} core "
            "hours"
        )
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
        if self.items is not None and not drawn:
            item_map.run(self.items, self._map(self.items))
        page.write(self.output, self.kept)

    def _map(self, study: Study) -> pathlib.Path:
        return item_map.file_of(study, self.kept / item_map.FOLDER.name)

    def _is_drawn(self, study: Study) -> bool:
        return item_map.is_of(self._map(study), study)


def of(
    folder: pathlib.Path,
    seeds: Sequence[int],
    places: tuple[str | None, str | None],
    jobs: int,
    output: pathlib.Path | None = None,
    *,
    smoke: bool = False,
) -> Whole:
    """The study in a folder.

    Args:
      folder: of everything that is trained.
      seeds: each with a toy world of its own.
      places: data_dir of a dataset of one's own, for the map of its items, and cache_dir.
      jobs: steps that run side by side.
      output: the page; None: docs/study.html.
      smoke: a few steps of little of everything; receipts and page stay in the folder.
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
    own = kept / losses.FOLDER.name
    worlds = [
        losses.of_world(seed, folder / "losses", cache_dir, jobs, most_steps=most, receipts=own)
        for seed in seeds
    ]
    items = None
    if data_dir:
        place = folder / f"map_{pathlib.Path(data_dir).name}"
        items = Study("custom", 0, place, data_dir, cache_dir, jobs, most_steps=most)
    page_at = output or (folder / "study.html" if smoke else page.OUTPUT)
    return Whole(texts, worlds, items, page_at, kept, smoke)
