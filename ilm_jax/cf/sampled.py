"""Trains a scorer with a ranking loss on sampled negatives that a batch shares."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from ilm_jax.cf.batches import draw_histories, epoch_batches, pad_histories
from ilm_jax.cf.ials import Factors
from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.negatives import Sampler, history_bitmap, met
from ilm_jax.cf.parts import joined, split
from ilm_jax.cf.ranks import fit_prior
from ilm_jax.cf.sampled_config import SampledConfig
from ilm_jax.cf.two_tower import TwoTower
from ilm_jax.objectives import ranking
from ilm_jax.training.pacing import Pacer

_SCORES = 1 << 18
"""Bound on the scores that exist at once on one device (1 MiB)."""
OnEpoch = Callable[[int, Float[np.ndarray, "users dim"], Float[np.ndarray, "items dim"]], Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Trainer:
    """One configuration on one set of interactions; made by `make_trainer`."""

    config: SampledConfig
    train: Interactions
    model: TwoTower
    sampler: Sampler
    optimizer: optax.GradientTransformation
    mesh: Mesh | None = None

    @functools.cached_property
    def constants(self) -> dict[str, Any]:
        """What every step reads, whole on each device so that no step copies it.

        History lengths, and the bitmap of histories if they are excluded.
        """
        found = {"lengths": self.train.lengths.astype(np.float32)}
        if self.config.exclude == "history":
            found["bitmap"] = history_bitmap(self.train)
        return jax.device_put(found, self._whole)

    def initial(self, seed: int) -> tuple[Any, Any]:
        """(parameters, optimizer state), a pure function of the seed."""
        histories = jnp.zeros((1, 1), jnp.int32) if self.config.user_tower == "history" else None
        key = jax.random.key(seed)
        one = jnp.zeros(1, jnp.int32)
        parameters = self.model.init(key, one, one, histories)
        return self._placed((parameters, self.optimizer.init(parameters)), jax.device_put)

    def _placed(self, trees: Any, place: Callable[..., Array]) -> Any:
        """Tables, and what the optimizer keeps of them, split by rows over the whole mesh."""
        if self.mesh is None:
            return trees
        split = NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names))

        def one(path: tuple[Any, ...], x: Array) -> Array:
            return place(x, split if str(path[-1]).endswith("_table']") else self._whole)

        return jax.tree_util.tree_map_with_path(one, trees)

    @property
    def _whole(self) -> NamedSharding | None:
        """On each device all of it."""
        return None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec())

    def scored(
        self,
        vectors: tuple[Array, Array, Array],
        constants: dict[str, Any],
        pairs: tuple[Int32[Array, " rows"], Int32[Array, " rows"]],
        candidates: Int32[Array, " drawn"],
    ) -> ranking.Scored:
        """Scores of (user, item) pairs and of the candidates.

        Args:
          vectors: of the users, of their items, and of the candidates.
          constants: see there.
          pairs: user and item rows.
          candidates: item rows.
        """
        (user, positive, negative), (users, items) = vectors, pairs
        valid = candidates[None, :] != items[:, None]
        negatives: Any = self.train.num_items - 1.0
        if self.config.exclude == "history":
            every = self.sampler.config.kind == "all"
            valid &= ~met(constants["bitmap"], users, None if every else candidates)[
                :, : len(candidates)
            ]
            negatives = self.train.num_items - constants["lengths"][users]
        return ranking.Scored(jnp.sum(user * positive, -1), user @ negative.T, valid, negatives)

    def value_and_gradient(
        self, parameters: Any, constants: dict[str, Any], batch: dict[str, Array], key: Array
    ) -> tuple[Float[Array, ""], Any]:
        """Mean loss of a batch of {"users", "items"[, "histories"]}, and its gradient.

        A large batch of scores is worked off in parts that stay in a CPU's caches.
        """
        users, items = batch["users"], batch["items"]
        candidates, log_expected = self.sampler.draw(key, items)

        def read(parameters: Any) -> tuple[Any, ...]:
            user = self.model.apply(parameters, users, batch.get("histories"), method="users")
            both = (self.model.apply(parameters, x, method="items") for x in (items, candidates))
            return (user, *both)

        vectors, back = jax.vjp(read, parameters)
        user, positive, negative = vectors
        rows, real = split((user, positive, users, items), self._parts(len(users), len(candidates)))

        def score(rows: tuple[Array, ...], negative: Array) -> ranking.Scored:
            own, target, user, item = rows
            return self.scored((own, target, negative), constants, (user, item), candidates)

        prior = self._prior(lambda rows: score(rows, negative), rows, real)

        def loss(own: tuple[Array, Array], negative: Array, rest: tuple[Array, ...]) -> Array:
            *pairs, real = rest
            each = self.config.losses(score((*own, *pairs), negative), log_expected, prior)
            return jnp.where(real, each, 0.0).sum() / len(users)

        def part(total: Array, rows: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
            slope = jax.value_and_grad(loss, (0, 1))
            value, (own, shared) = slope(rows[:2], negative, rows[2:])
            return total + shared, (value, *own)

        total, (values, *own) = jax.lax.scan(part, jnp.zeros_like(negative), (*rows, real))
        whole = (*(joined(x, len(users)) for x in own), total)
        l2 = self.config.l2 / sum(map(len, vectors))
        value = values.sum() + 0.5 * l2 * sum(jnp.sum(x**2) for x in vectors)
        both = zip(whole, vectors, strict=True)
        return value, back(tuple(g + l2 * x for g, x in both))[0]

    def _prior(
        self,
        score: Callable[[tuple[Array, ...]], ranking.Scored],
        rows: tuple[Array, ...],
        real: Bool[Array, "parts size"],
    ) -> ranking.Pair | None:
        """Of shrunk ranks, fitted to the whole batch: to its parts it would depend on their number.

        Takes a pass over the scores of its own; the parts are scored again for the loss.
        """
        if self.config.rank != "shrunk" or self.config.loss not in ("warp", "lambdarank"):
            return None
        margin = self.config.margin if self.config.loss == "warp" else None

        def counts(part: tuple[Array, ...]) -> tuple[Array, Array]:
            scored = score(part)
            return ranking.violates(scored, margin).sum(1), scored.drawn

        violators, drawn = jax.lax.map(counts, rows)
        return jax.lax.stop_gradient(fit_prior(violators, jnp.where(real, drawn, 0.0)))

    def _parts(self, batch: int, drawn: int) -> int:
        """In how many equal parts a batch is worked off; the last may be filled up."""
        if self.mesh is not None and self.mesh.size > 1:
            return 1
        return -(-batch // max(1, _SCORES // drawn))

    @functools.cached_property
    def step(self) -> Callable[..., tuple[Any, Any, Float[Array, ""]]]:
        """Compiled (parameters, state, constants, batch, key) -> (parameters, state, loss)."""

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(
            parameters: Any, state: Any, constants: dict[str, Any], batch: dict, key: Array
        ) -> tuple[Any, Any, Float[Array, ""]]:
            value, gradient = self.value_and_gradient(parameters, constants, batch, key)
            updates, state = self.optimizer.update(gradient, state, parameters)
            after = optax.apply_updates(parameters, updates), state
            return *self._placed(after, jax.lax.with_sharding_constraint), value

        return step

    def batches(self, epoch: int, seed: int) -> list[dict[str, np.ndarray]]:
        """The batches of an epoch, a pure function of both; see `epoch_batches`."""
        history = self.config.history if self.config.user_tower == "history" else None
        return epoch_batches(self.train, self.config.batch_size, history, seed, epoch)

    def fit(self, on_epoch: OnEpoch | None = None, seed: int | None = None) -> Factors:
        """Trains from the start, with another seed than the configured one if given.

        Seeds share the compiled step. Errors as the function `fit`.
        """
        factors = self.factors(self.fit_parameters(on_epoch, seed), seed)
        if not (np.isfinite(factors.user).all() and np.isfinite(factors.item).all()):
            raise ValueError("training diverged to non-finite vectors; lower the learning rate")
        return factors

    def fit_parameters(self, on_epoch: OnEpoch | None = None, seed: int | None = None) -> Any:
        """As the method `fit`, but returns what `factors` and `user_vectors` read."""
        seed = self.config.seed if seed is None else seed
        parameters, state = self.initial(seed)
        root, number, pacer = jax.random.key(seed + 1), 0, Pacer()
        for epoch in range(self.config.epochs):
            for batch in self.batches(epoch, seed):
                key = jax.random.fold_in(root, number)
                step = functools.partial(
                    self.step, parameters, state, self.constants, self._split(batch), key
                )
                parameters, state, _ = pacer(step, lambda result: result[2])
                number += 1
            if on_epoch:
                factors = self.factors(parameters, seed)
                if on_epoch(epoch + 1, factors.user, factors.item):
                    break
        return parameters

    def _split(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        if self.mesh is None or len(batch["users"]) % self.mesh.size:
            return dict(batch)
        split = NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names))
        return jax.device_put(batch, split)

    def factors(self, parameters: Any, seed: int | None = None) -> Factors:
        """Vectors of all users and items; rows without training pairs are zero.

        Args:
          parameters: of `fit_parameters`.
          seed: of what is read of longer histories than the configured; that of the configuration
            if None.
        """
        users = np.arange(self.train.num_users, dtype=np.int32)
        histories = None
        if self.config.user_tower == "history":
            draw = np.random.Generator(np.random.Philox(self.config.seed if seed is None else seed))
            nothing = np.full(len(users), -1)
            histories = draw_histories(self.train, users, nothing, self.config.history, draw)
        user = np.array(self.model.apply(parameters, users, histories, method="users"))
        item = np.array(
            self.model.apply(parameters, np.arange(self.train.num_items), method="items")
        )
        user[self.train.lengths == 0] = 0.0
        item[self.train.item_counts() == 0] = 0.0
        return Factors(user, item)

    def user_vectors(
        self, parameters: Any, histories: Sequence[Int[np.ndarray, " length"]]
    ) -> Float32[np.ndarray, "users dim"]:
        """Vectors of users whom training need not have seen, by the history tower.

        Args:
          parameters: of `fit_parameters`.
          histories: item rows of each user, all of which are read; none give a zero vector.

        Raises:
          ValueError: for the tower "id", or an item outside the catalogue.
        """
        if self.config.user_tower != "history":
            raise ValueError("user_tower='id' has vectors for training's users alone; "
                             "train with user_tower='history'")  # fmt: skip
        padded = pad_histories(histories, self.train.num_items)
        users = np.arange(len(histories))
        found = np.array(self.model.apply(parameters, users, padded, method="users"))
        found[[len(items) == 0 for items in histories]] = 0.0
        return found


def make_trainer(train: Interactions, config: SampledConfig, mesh: Mesh | None = None) -> Trainer:
    """A trainer; with a mesh, tables are split by rows over all its devices.

    So are batches whose size the devices divide; others every device works off whole.
    """
    sampler = Sampler.make(config.sampler, train.item_counts())
    model = config.model(train.num_users, train.num_items, 1 if mesh is None else mesh.size)
    rate: Any = config.learning_rate
    if config.schedule == "linear":
        size = min(config.batch_size, len(train.items))
        rate = optax.linear_schedule(rate, 0.0, config.epochs * -(-len(train.items) // size))
    return Trainer(config, train, model, sampler, optax.adam(rate), mesh)


def fit(
    train: Interactions,
    config: SampledConfig | None = None,
    on_epoch: OnEpoch | None = None,
    mesh: Mesh | None = None,
) -> Factors:
    """Trains on observed pairs; the same config and machine give the same bits.

    Args:
      train: the pairs.
      config: see `SampledConfig`.
      on_epoch: called as on_epoch(epochs done, user vectors, item vectors); True stops.
      mesh: devices to split tables and batches over.

    Raises:
      ValueError: if the vectors are not finite.
    """
    return make_trainer(train, config or SampledConfig(), mesh).fit(on_epoch)
