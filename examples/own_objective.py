"""Adds an objective of one's own: a two-tower next-item model, under the package's own trainer.

The mean of a history's item vectors goes through an MLP; the softmax is over the batch's items.
About 20 seconds on two CPU cores: python examples/own_objective.py [STEPS [MODEL_DIR]]
"""

import dataclasses
import sys

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

import ilm_jax
from ilm_jax.cf import evaluation, popularity
from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.streams.schedule import Schedule
from ilm_jax.objectives.objective import Objective, Sums
from ilm_jax.training.optimizers import OptimizerConfig
from ilm_jax.training.trainer import Trainer, TrainerConfig


class Towers(nn.Module):
    num_items: int

    @nn.compact
    def __call__(self, histories, items):
        embed = nn.Embed(self.num_items, 32, embedding_init=nn.initializers.normal(0.3))
        real = (histories >= 0)[..., None]
        mean = (embed(histories) * real).sum(1) / jnp.maximum(real.sum(1), 1)
        return mean + nn.Dense(32)(nn.relu(nn.Dense(64)(mean))), nn.Dense(32)(embed(items))


@dataclasses.dataclass(frozen=True)
class NextItem(Objective):
    num_items: int
    kinds, splits_batches = ("next_item",), False  # negatives are the whole batch

    def init(self, key):
        return Towers(self.num_items).init(key, jnp.zeros((1, 1), int), jnp.zeros(1, int))

    def loss(self, params, kind, batch, table, key):
        user, item = Towers(self.num_items).apply(params, batch["history"], batch["target"])
        scores = user @ item.T - table[batch["target"], 0]  # the table: log of items' counts
        losses = nn.logsumexp(scores, axis=1) - jnp.diag(scores)
        return {"loss": Sums(losses.sum(), jnp.float32(len(losses)))}


@dataclasses.dataclass
class NextItems:
    pairs: list  # (history, the item after it)

    def rows(self, indices):  # example i is a function of i alone, so that a run resumes anywhere
        draws = [np.random.default_rng(int(i)).integers(len(self.pairs)) for i in indices]
        histories, targets = zip(*(self.pairs[draw] for draw in draws), strict=True)
        return {"history": padded(histories), "target": np.array(targets)}


def padded(histories):
    return np.stack([np.append([-1] * 20, x)[-20:].astype(np.int32) for x in histories])


def main(steps: str = "400", model_dir: str = "") -> None:
    splits = make_splits(ilm_jax.load_catalogue("toy"))
    counts = splits.train_counts()
    known = [splits.train_sequence(user) for user in range(splits.catalogue.num_users)]
    sources = {"next_item": NextItems([(x[:n], x[n]) for x in known for n in range(1, len(x))])}
    schedule, config = Schedule({"next_item": 1}), TrainerConfig(int(steps), batch_size=256)
    settings = {"optimizer": OptimizerConfig("adamw", 0.01), "table": np.log(counts + 1.0)[:, None]}
    trainer = Trainer(model_dir, NextItem(len(counts)), sources, schedule, config, **settings)
    trainer.fit()
    towers = Towers(len(counts)).apply(trainer.params(), padded(known), np.arange(len(counts)))
    scorers = {"two towers": evaluation.vector_scorer(*map(np.asarray, towers))}
    scorers["popularity"] = popularity.popularity_scorer(counts)
    for name, scorer in scorers.items():
        print(f"{name}  NDCG@10 {evaluation.evaluate(scorer, splits).ndcg(10).mean():.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
