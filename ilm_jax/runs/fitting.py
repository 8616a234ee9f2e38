"""From splits to an embedding table: one method, or several side by side ("combined").

The root of the recipes runs/cf_*.gin; without gin it is a plain dataclass.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32

from ilm_jax.cf import evaluation, ials, text_vectors
from ilm_jax.cf.early_stopping import EarlyStopping, Vectors
from ilm_jax.cf.ials import Factors, IALSConfig, OnEpoch
from ilm_jax.cf.interactions import catalogue_from_sequences, train_interactions
from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.cf.table_set import unit_rms
from ilm_jax.cf.text_vectors import TextConfig
from ilm_jax.checks import Count, Number, check
from ilm_jax.data.catalogue.splits import SplitConfig, Splits, make_splits
from ilm_jax.data.sources.prepare import load_catalogue
from ilm_jax.errors import UserError
from ilm_jax.runs.vector_fit import TrainedMethod, VectorFit
from ilm_jax.sharding.partitioning import Partitioner

Method = IALSConfig | TextConfig | TrainedMethod


@dataclasses.dataclass
class FitCF:
    """A collaborative-filtering fit: its data and its methods.

    Attributes:
      dataset, data_dir, cache_dir: see `load_catalogue`.
      sequences: instead, a file of "user item item …" lines; see `catalogue_from_sequences`.
      output: file to write; None: cache_dir/tables/<dataset>.safetensors.
      split: which interactions and texts may be seen.
      methods: one, or several whose vectors stand side by side, each part scaled so that its
        entries have mean square 1.
      user_vector: "full", the fit's own, which has seen every training target; "prefix", folded
        in from the history before the last training target (iALS alone); see `prefix_users`.
      patience: measurements on validation without improvement after which fitting stops; 0 fits
        all epochs. Not for text.
      every: epochs from one measurement to the next, at most those of each method.
      model_dir: of methods that are trained step by step: checkpoints, one after every `every`
        epochs, metrics.jsonl and config.gin, as of every run; a fit that was killed goes on from
        there and gives the same table, bit for bit. Of several such methods each has a folder in
        it, by its place among the methods. "": nothing but the table is written, and a fit that
        was killed starts anew. iALS and text have no checkpoints.
      partitioner: the mesh.

    Raises:
      UserError: for a combination that cannot be fitted.
    """

    dataset: str = "toy"
    data_dir: str | None = None
    cache_dir: str | os.PathLike | None = None
    sequences: str | None = None
    output: str | None = None
    split: SplitConfig = SplitConfig()
    methods: Sequence[Method] = (IALSConfig(),)
    user_vector: str = "full"
    patience: Number = 0
    every: Count = 1
    model_dir: str = ""
    partitioner: Partitioner = Partitioner()

    def __post_init__(self) -> None:
        """Refuses what cannot be, before data is opened."""
        check(self)
        if self.user_vector not in ("full", "prefix"):
            raise UserError(f"user_vector={self.user_vector!r}; choose 'full' or 'prefix'")
        if not self.methods:
            raise UserError("no method to fit: set fitting.FitCF.methods")
        others = [m for m in self.methods if not isinstance(m, IALSConfig)]
        if self.user_vector == "prefix" and others:
            raise UserError(
                "user_vector='prefix' folds users into iALS; other methods have only 'full' vectors"
            )
        if self.model_dir and not any(isinstance(m, TrainedMethod) for m in self.methods):
            raise UserError(
                f"FitCF.model_dir={self.model_dir!r}: only methods that are trained step by step "
                "have checkpoints (runs/cf_sampled.gin); leave it out"
            )
        for method in self.methods if self.patience else ():
            if not isinstance(method, TextConfig) and self.every > method.epochs:
                raise UserError(
                    f"FitCF.every={self.every} with {_name(method)} of {method.epochs} "
                    f"epochs: nothing would be measured; set every to at most {method.epochs}"
                )

    @property
    def most_epochs(self) -> int:
        """Of the iALS methods, which report every epoch; 0 without one."""
        return max((m.epochs for m in self.methods if isinstance(m, IALSConfig)), default=0)

    def splits(self) -> Splits:
        """The catalogue, split."""
        if self.sequences:
            catalogue = catalogue_from_sequences(self.sequences, self.dataset)
        else:
            catalogue = load_catalogue(
                self.dataset, data_dir=self.data_dir, cache_dir=self.cache_dir
            )
        return make_splits(catalogue, self.split)

    def fit(
        self,
        splits: Splits,
        on_epoch: OnEpoch | None = None,
        config_text: str = "",
    ) -> EmbeddingTable:
        """Fits every method and sets their vectors side by side.

        Args:
          splits: of `splits()`, as a rule.
          on_epoch: called by iALS as on_epoch(epochs done, user vectors, item vectors); True stops
            that method. Methods that are trained step by step show their steps themselves.
          config_text: written to config.gin of the runs in `model_dir`.

        Raises:
          UserError: if a fit is not finite, was asked to stop, or texts are too few.
        """
        tables = []
        for place, method in enumerate(self.methods):
            if isinstance(method, TrainedMethod):
                tables.append(self._fit_trained(splits, place, config_text))
                continue
            stop = None
            if self.patience and not isinstance(method, TextConfig):
                stop = EarlyStopping(validation_ndcg(splits), self.patience, self.every)
            table = fit_method(splits, method, _both(on_epoch, stop), self.partitioner, stop)
            if self.user_vector == "prefix" and isinstance(method, IALSConfig):
                table = with_prefix_users(splits, table, method)
            tables.append(table)
        return tables[0] if len(tables) == 1 else side_by_side(tables)

    def trained(self, splits: Splits, place: int = 0, config_text: str = "") -> VectorFit:
        """The fit of a method that is trained step by step, which `fit` runs.

        Args:
          splits: of `splits()`, as a rule.
          place: of the method among the methods.
          config_text: written to config.gin of its run.

        Raises:
          UserError: if the method is none such, or the data cannot be fitted.
        """
        method = self.methods[place]
        if not isinstance(method, TrainedMethod):
            raise UserError(f"{_name(method)} is not trained step by step: it has no run")
        several = sum(isinstance(other, TrainedMethod) for other in self.methods) > 1
        try:
            return method.fit_of(
                splits,
                partitioner=self.partitioner,
                model_dir=self.model_dir + f"/{place}" * (several and bool(self.model_dir)),
                measure=validation_ndcg(splits) if self.patience else None,
                patience=self.patience,
                every=self.every,
                made_from={"data": {splits.catalogue.name: splits.fingerprint}},
                config_text=config_text,
            )
        except ValueError as error:
            raise UserError(f"{splits.catalogue.name}: {error}") from error

    def _fit_trained(self, splits: Splits, place: int, config_text: str) -> EmbeddingTable:
        run = self.trained(splits, place, config_text)
        try:
            factors = run.fit()
        except ValueError as error:
            raise UserError(f"{splits.catalogue.name}: {error}") from error
        stopped = {"stopped_at_epoch": run.best_epoch} if self.patience else {}
        return _table(splits, self.methods[place], factors, stopped)


def _name(method: Method) -> str:
    if isinstance(method, TrainedMethod):
        return method.name
    return "ials" if isinstance(method, IALSConfig) else "text"


def validation_ndcg(splits: Splits) -> Callable[[Vectors, Vectors], float]:
    """NDCG@10 of the validation targets, of user and item vectors."""

    def measure(user: Vectors, item: Vectors) -> float:
        """Mean NDCG@10 on validation interactions."""
        scorer = evaluation.vector_scorer(user, item)
        return float(evaluation.evaluate(scorer, splits).ndcg(10).mean())

    return measure


def _both(on_epoch: OnEpoch | None, stop: EarlyStopping | None) -> OnEpoch | None:
    if stop is None:
        return on_epoch

    def called(epoch: int, user: Vectors, item: Vectors) -> bool:
        """Calls both; True where one of them ends the fit."""
        asked = on_epoch is not None and bool(on_epoch(epoch, user, item))
        return stop(epoch, user, item) or asked  # an epoch that ends the fit is measured too

    return called


def fit_method(
    splits: Splits,
    method: IALSConfig | TextConfig,
    on_epoch: OnEpoch | None = None,
    partitioner: Partitioner | None = None,
    stop: EarlyStopping | None = None,
) -> EmbeddingTable:
    """The table of one method; with `stop` (which `on_epoch` must call) its best epoch's.

    If fitting ends before `stop` has measured, it is the last epoch's.

    Raises:
      UserError: if the fit is not finite, or texts are too few.
    """
    catalogue, train = splits.catalogue, train_interactions(splits)
    mesh = partitioner.mesh if partitioner is not None else None
    try:
        if isinstance(method, TextConfig):
            factors = text_vectors.fit(splits, method)
        else:
            factors = ials.fit_interactions(train, method, on_epoch, mesh)
    except ValueError as error:
        raise UserError(f"{catalogue.name}: {error}") from error
    stopped = {}
    if stop is not None and stop.user is not None and stop.item is not None:
        factors = Factors(stop.user, stop.item)
        stopped = {"stopped_at_epoch": stop.epoch}
    return _table(splits, method, factors, stopped)


def _table(
    splits: Splits, method: Method, factors: Factors, stopped: dict[str, int]
) -> EmbeddingTable:
    """The vectors with the settings that made them, and which rows are cold."""
    catalogue = splits.catalogue
    settings = {"method": _name(method), **dataclasses.asdict(method), **stopped}
    cold = splits.train_counts() == 0, np.diff(catalogue.offsets) == 0
    if isinstance(method, TextConfig) or (isinstance(method, TrainedMethod) and method.reads_texts):
        cold = ~factors.item.any(1), ~factors.user.any(1)  # where no text was read either
    return EmbeddingTable(
        catalogue=catalogue.name,
        item=factors.item,
        user=factors.user,
        item_cold=cold[0],
        user_cold=cold[1],
        item_ids=catalogue.item_ids,
        user_ids=catalogue.user_ids,
        split_fingerprint=splits.fingerprint,
        settings=settings,
    )


def side_by_side(tables: Sequence[EmbeddingTable]) -> EmbeddingTable:
    """One table whose vectors are those of several, one after the other.

    Every part's non-cold rows are divided by one number for items and one for users, so that
    their entries have mean square 1. A row is cold if it is so in every part; how many are cold in
    each part stands in the settings.

    Raises:
      UserError: if the tables are of different catalogues or splits.
    """
    first = tables[0]
    for table in tables[1:]:
        if (table.item_ids, table.user_ids) != (first.item_ids, first.user_ids):
            raise UserError("tables of different catalogues cannot stand side by side")
        if table.split_fingerprint != first.split_fingerprint:
            raise UserError(
                f"tables of different splits (fingerprints {first.split_fingerprint[:12]} and "
                f"{table.split_fingerprint[:12]}) cannot stand side by side; fit them again on one"
            )
    parts = [
        {
            **table.settings,
            "dim": table.dim,
            "item_cold": int(table.item_cold.sum()),
            "user_cold": int(table.user_cold.sum()),
        }
        for table in tables
    ]
    return dataclasses.replace(
        first,
        item=np.concatenate([unit_rms(t.item, t.item_cold) for t in tables], axis=1),
        user=np.concatenate([unit_rms(t.user, t.user_cold) for t in tables], axis=1),
        item_cold=np.all([t.item_cold for t in tables], axis=0),
        user_cold=np.all([t.user_cold for t in tables], axis=0),
        settings={"method": "combined", "parts": parts},
    )


def prefix_users(
    splits: Splits,
    item: Float32[np.ndarray, "items dim"],
    config: IALSConfig,
    users: np.ndarray,
    lengths: np.ndarray,
) -> Float32[np.ndarray, "asked dim"]:
    """Vectors of users as they stood after the first `lengths` of their interactions.

    A fit's own user vector has seen the items that training will ask for; these have not. (The
    item vectors have met every training interaction in either case.)

    Raises:
      ValueError: if a length goes beyond the training interactions.
    """
    histories = []
    for user, length in zip(users, lengths, strict=True):
        known = splits.train_sequence(int(user))
        if not 0 <= length <= len(known):
            raise ValueError(f"user row {user} trains with {len(known)} interactions, not {length}")
        histories.append(known[:length])
    return ials.fold_in(histories, item, config)


def with_prefix_users(splits: Splits, table: EmbeddingTable, config: IALSConfig) -> EmbeddingTable:
    """The table with each user folded in from the history before the last training target.

    Users with fewer than two training interactions have no such history: cold.
    """
    users = np.arange(splits.catalogue.num_users)
    lengths = np.array([max(0, len(splits.train_sequence(int(user))) - 1) for user in users])
    vectors = prefix_users(splits, table.item, config, users, lengths)
    cold = (lengths == 0) | ~vectors.any(1)
    vectors[cold] = 0.0
    settings = {**table.settings, "user_vector": "prefix"}
    return dataclasses.replace(table, user=vectors, user_cold=cold, settings=settings)
