"""Slips in optimizers, schedules, sharding rules and the training step."""

from tests.planted import Fault

_OPTIMIZER = "tests/training/test_optimizers.py"
_RULES = "tests/sharding/test_sharding_rules.py"
_STEP = "tests/training/test_step.py"

FAULTS = (
    Fault(
        "the decay does not end with the run", "ilm_jax/training/optimizers.py",
        "(self.decay_steps or total_steps) - self.warmup_steps",
        "(self.decay_steps or total_steps)", _OPTIMIZER,
    ),
    Fault(
        "a schedule's own end is not heard", "ilm_jax/training/optimizers.py",
        "(self.decay_steps or total_steps) - self.warmup_steps", "total_steps - self.warmup_steps",
        _OPTIMIZER,
    ),
    Fault(
        "the update is clipped, not the gradient", "ilm_jax/training/optimizers.py",
        "optax.chain(clip, update)", "optax.chain(update, clip)", _OPTIMIZER,
    ),
    Fault(
        "no_decay matches from the start of a path only", "ilm_jax/training/optimizers.py",
        "pattern.search(path)", "pattern.match(path)", _OPTIMIZER,
    ),
    Fault(
        "heads are not split", "ilm_jax/sharding/partitioning.py",
        '("heads", "tensor"),', '("heads", None),', _RULES,
    ),
    Fault(
        "the linear schedule ends at the fraction itself", "ilm_jax/training/optimizers.py",
        "self.learning_rate, self.learning_rate * self.end_fraction",
        "self.learning_rate, self.end_fraction", _OPTIMIZER,
    ),
    Fault(
        "the cosine falls to zero", "ilm_jax/training/optimizers.py",
        "optax.cosine_decay_schedule(peak, decay_steps, self.end_fraction)",
        "optax.cosine_decay_schedule(peak, decay_steps)", _OPTIMIZER,
    ),
    Fault(
        "the warm-up is a step too long", "ilm_jax/training/optimizers.py",
        "optax.linear_schedule(0.0, peak, max(1, self.warmup_steps))",
        "optax.linear_schedule(0.0, peak, self.warmup_steps + 1)", _OPTIMIZER,
    ),
    Fault(
        "everything decays", "ilm_jax/training/optimizers.py",
        "mask=self.decays", "mask=None", _OPTIMIZER,
    ),
    Fault(
        "the moments' memories are swapped", "ilm_jax/training/optimizers.py",
        "rate, self.b1, self.b2, self.eps,", "rate, self.b2, self.b1, self.eps,", _OPTIMIZER,
    ),
    Fault(
        "the norm is summed in the leaves' own type", "ilm_jax/training/optimizers.py",
        "jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)", "tree", _OPTIMIZER,
    ),
    Fault(
        "the gradient of a batch is a sum", "ilm_jax/training/step.py",
        "jax.lax.with_sharding_constraint(g / weight,", "jax.lax.with_sharding_constraint(g,",
        _STEP,
    ),
    Fault(
        "every step drops the same units", "ilm_jax/training/step.py",
        "jax.random.fold_in(key, state.step)", "key", _STEP,
    ),
    Fault(
        "every microbatch drops the same units", "ilm_jax/training/step.py",
        "jax.random.fold_in(key, index),", "key,", _STEP,
    ),
    Fault(
        "an infinite gradient of a finite loss is taken", "ilm_jax/training/step.py",
        'jnp.isfinite(sums["loss"].total) & jnp.isfinite(norm)',
        'jnp.isfinite(sums["loss"].total)', _STEP,
    ),
    Fault(
        "the moments take in what is not finite", "ilm_jax/training/step.py",
        "opt_state=guard(opt_state, state.opt_state)", "opt_state=opt_state", _STEP,
    ),
    Fault(
        "microbatches are runs of neighbouring rows", "ilm_jax/training/step.py",
        "x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1)",
        "x.reshape(microbatches, -1, *x.shape[1:])", _STEP,
    ),
    Fault(
        "evaluation drops units too", "ilm_jax/training/step.py",
        "kind, batch, table, None)", "kind, batch, table, jax.random.key(0))", _STEP,
    ),
    Fault(
        "the schedule starts with its second kind", "ilm_jax/data/streams/schedule.py",
        "cycle[step % len(cycle)]", "cycle[(step + 1) % len(cycle)]",
        "tests/data/test_schedule.py",
    ),
    Fault(
        "kinds come in blocks", "ilm_jax/data/streams/schedule.py",
        "self.shares[k] * step / total - taken[k]", "self.shares[k] - taken[k]",
        "tests/data/test_schedule.py",
    ),
    Fault(
        "a batch is read from the start of the stream", "ilm_jax/training/feeding.py",
        "source.rows(first + rows)", "source.rows(rows)",
        "tests/training/test_trainer.py -k batch_size_may_change",
    ),
    Fault(
        "rows are split over data alone", "ilm_jax/sharding/partitioning.py",
        '("batch", ("data", "fsdp")),', '("batch", "data"),', _RULES,
    ),
    Fault(
        "words are split over tensor alone", "ilm_jax/sharding/partitioning.py",
        '    ("vocab", ("tensor", "fsdp")),\n', "", _RULES,
    ),
    Fault(
        "slices and chips change places", "ilm_jax/sharding/partitioning.py",
        "ici, dcn, devices, process", "dcn, ici, devices, process", _RULES,
    ),
)  # fmt: skip
