"""Orbax checkpoints of what trains: parameters, optimizer, step and stream positions.

On disk every layer has its own entry (`layer_07/…`), whatever the scan over layers in memory, so
that a checkpoint does not depend on how the model was compiled. Frozen weights are not copied:
a checkpoint names where they came from, with a fingerprint. Those that were drawn came from
nowhere, and are saved with what trains.
"""

import contextlib
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
import optax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from ilm_jax.checkpoints.keeping import LastGood, loss_of
from ilm_jax.checkpoints.layout import disk_layout, disk_names, slot_names, to_disk, to_memory
from ilm_jax.checkpoints.manager import Policies, listed_steps, one_line, open_manager, quiet
from ilm_jax.checks import Choice, Count, Number, Weight, check
from ilm_jax.data.streams.schedule import Positions
from ilm_jax.errors import UserError
from ilm_jax.files import folder_path, is_full, is_remote
from ilm_jax.sharding.freezing import Leaf
from ilm_jax.sharding.state import FlatParams, TrainState, flat, nested

# What a run was made from, and another that takes parameters of it may not be.
MAY_DIFFER = ("tokenizer", "new_tokens", "table", "data")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When to save and what to keep.

    Attributes:
      every: steps between checkpoints; the last step is always saved. 0: only the last.
      keep_last: newest checkpoints kept.
      keep_best: checkpoints kept with the lowest validation `loss`; 0 for none.
      asynchronous: write in the background while training goes on.
      outlier: a checkpoint is good unless the norm of what trains is above so many times its
        median over the last logs; 0: all are. The last good one is kept, whatever `keep_last` is.
    """

    every: Number = 1000
    keep_last: Count = 2
    keep_best: Number = 1
    asynchronous: bool = True
    outlier: Weight = 10.0

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True)
class InitFrom:
    """Takes parameters from another run's checkpoint, or from a published model.

    Attributes:
      path: that run's MODEL_DIR, or a published model (see checkpoints/published/sources.py).
      parameters: patterns of paths to take.
      allow_unused: patterns of paths there that may find no place here.
      step: a step, "best" (lowest validation loss, else the last) or "last".
      top: the top key that a published model's entries take here.
      allow_different: what it may have been made from that is another one here: "tokenizer",
        "new_tokens", "table" (of vectors) or "data" (split of one catalogue); see lineage.py.
    """

    path: str
    parameters: tuple[str, ...] = (".*",)
    allow_unused: tuple[str, ...] = ()
    step: Number | Annotated[str, Choice(("best", "last"))] = "best"
    top: str = "lm"
    allow_different: tuple[Annotated[str, Choice(MAY_DIFFER)], ...] = ()

    def __post_init__(self) -> None:
        check(self)


class Checkpoints:
    """The checkpoints of one MODEL_DIR.

    Attributes:
      drawn: paths of frozen parameters that no source holds, which are saved too.
    """

    drawn: Sequence[str] = ()

    def __init__(self, model_dir: str | os.PathLike, config: CheckpointConfig | None = None):
        """Opens MODEL_DIR/checkpoints; with `config` for writing, after clearing stale folders."""
        self._folder = folder_path(model_dir) / "checkpoints"
        listed = listed_steps(self._folder)
        if config is None and listed is None:
            raise UserError(f"{model_dir} holds no checkpoints: is it a finished run's MODEL_DIR?")
        self._good: dict[int, bool] = {}
        self._writes = config is not None
        keep: Policies | None = None
        if config is not None:
            keep = [preservation_policy.LatestN(config.keep_last), LastGood(self._is_good)]
            if config.keep_best:
                keep.append(
                    preservation_policy.BestN(
                        get_metric_fn=loss_of,
                        reverse=True,
                        n=config.keep_best,
                        keep_checkpoints_without_metrics=False,
                    )
                )
        with one_line(self._folder), quiet():  # metrics of all steps are read here
            self._manager = open_manager(
                self._folder, keep, asynchronous=bool(config and config.asynchronous)
            )
        # Orbax takes a question that fails for "no", and a run would start anew over the old one.
        unseen = sorted({*(listed or ())} - {*self._manager.all_steps()})
        if unseen:
            raise UserError(
                f"{self._folder} holds the checkpoints {unseen}, which cannot be "
                "opened: try again, or delete them if they are damaged"
            )

    def save(
        self,
        state: TrainState,
        positions: Positions,
        meta: Mapping[str, Any],
        metrics: Mapping[str, float] | None,
    ) -> None:
        """Saves at the state's step; a step that is there already is left alone."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self._good[step] = bool(meta.get("good", True))
        names = disk_names({**state.trainable, **state.frozen})
        moments = slots(state.opt_state)
        kept = state.trainable | {path: state.frozen[path] for path in self.drawn}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.PyTreeSave(nested(to_disk(kept, names))),
                optimizer=ocp.args.PyTreeSave(nested(to_disk(moments, slot_names(moments, names)))),
                meta=ocp.args.JsonSave({**meta, "next_example": dict(positions.next_example)}),
            ),
            metrics=dict(metrics) if metrics else None,
        )

    @property
    def latest_step(self) -> int | None:
        """The newest complete checkpoint."""
        return self._manager.latest_step()

    def resolve(self, step: int | str) -> int:
        """Turns "best" or "last" into a step.

        Raises:
          UserError: if there is no such checkpoint.
        """
        steps = self._manager.all_steps()
        if step == "best":
            found = self.best_step()
        elif step == "last":
            found = self._manager.latest_step()
        else:
            found = int(step) if str(step).isdecimal() else None
        if found is None or found not in steps:
            raise UserError(
                f"{self._folder} has no checkpoint {step!r}; there are: {steps or 'none'}"
            )
        return found

    @property
    def latest_meta(self) -> dict[str, Any] | None:
        """`meta` of the newest complete checkpoint; None where there is none."""
        step = self.latest_step
        return None if step is None else self.meta(step)

    def last_good_step(self) -> int | None:
        """The newest checkpoint that was not marked when it was saved."""
        return max(filter(self._is_good, self._manager.all_steps()), default=None)

    def check_good(self) -> None:
        """Raises UserError if the newest checkpoint, from which a run would go on, is marked."""
        latest, good = self.latest_step, self.last_good_step()
        if latest == good:
            return
        meta = self.latest_meta or {}
        steps = sorted(self._manager.all_steps())
        later = [f"{self._folder}/{step}" for step in steps if step > (good or 0)]
        where = "there is none before it" if good is None else f"the last good one is {good}"
        raise UserError(
            f"the checkpoint of step {latest} is not good: the norm of what trains was "
            f"{meta['weight_norm']:.3g}, usually {meta['usual_weight_norm']:.3g}; {where}. Remove "
            f"{' '.join(later)} to go on before it, take a lower learning rate in a new MODEL_DIR, "
            "or set CheckpointConfig.outlier = 0 to go on nevertheless"
        )

    def _is_good(self, step: int) -> bool:
        if step not in self._good:
            self._good[step] = bool(self.meta(step).get("good", True))
        return self._good[step]

    def best_step(self) -> int | None:
        """The good one of the lowest finite loss, the later of equal ones; else the last good."""
        good = [step for step in self._manager.all_steps() if self._is_good(step)]
        losses = {step: loss_of(self._manager.metrics(step)) for step in good}
        known = [step for step in good if math.isfinite(losses[step])]
        return min(known, key=lambda step: (losses[step], -step), default=max(good, default=None))

    def resume(self, state: TrainState) -> tuple[TrainState, Positions, dict[str, Any]]:
        """Restores the newest checkpoint into the shape and shardings of `state`."""
        step = self.resolve("last")
        meta = self.meta(step)
        names = disk_names({**state.trainable, **state.frozen})
        trainable = self._read(step, "params", state.trainable, names)
        like = slots(state.opt_state)
        restored = self._read(step, "optimizer", like, slot_names(like, names))
        leaves = [restored[path] for path in like]
        opt_state = jax.tree.unflatten(jax.tree.structure(state.opt_state), leaves)
        counter = jax.device_put(jax.numpy.asarray(step, jax.numpy.int32), state.step.sharding)
        state = state.replace(step=counter, trainable=trainable, opt_state=opt_state)
        return state, Positions(meta["next_example"]), meta

    def trained(self, step: int, like: FlatParams) -> FlatParams:
        """The trainable parameters as saved at a step, in the shardings of `like`."""
        return self._read(step, "params", like)

    def shapes(self, step: int) -> dict[str, jax.ShapeDtypeStruct]:
        """{path on disk: shape and dtype} of the parameters saved at a step."""
        with one_line(f"{self._folder}/{step}"):
            metadata = flat(self._manager.item_metadata(step)["params"].tree)
        return {p: jax.ShapeDtypeStruct(m.shape, m.dtype) for p, m in metadata.items()}

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON stored beside the parameters."""
        with one_line(f"{self._folder}/{step}"):
            found = self._manager.restore(
                step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
            )["meta"]
            if not isinstance(found, dict) or "version" not in found:
                raise ValueError("its metadata is no record of ours")
        return found

    def wait(self) -> None:
        """Returns when everything that was asked to be saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and closes; after a save that failed there is nothing to wait for.

        What was made for checkpoints goes again where none was saved.
        """
        try:
            self._manager.close()
        except Exception as error:
            if not is_full(error):
                raise
        if self._writes and not is_remote(self._folder):
            with contextlib.suppress(OSError):  # there are some, or another process was first
                os.rmdir(self._folder)

    def _read(
        self,
        step: int,
        item: str,
        like: FlatParams,
        names: Mapping[str, list[str]] | None = None,
    ) -> FlatParams:
        names = names or disk_names(like)
        wanted = disk_layout(like, names)
        with one_line(f"{self._folder}/{step}"):
            saved = flat(self._manager.item_metadata(step)[item].tree)
        check_same(saved, wanted, f"{self._folder}/{step}/{item}")
        arguments = {
            name: ocp.ArrayRestoreArgs(sharding=x.sharding, dtype=x.dtype)
            for name, x in wanted.items()
        }
        restore = ocp.args.PyTreeRestore(
            nested(wanted), restore_args=nested(arguments), partial_restore=True
        )
        with one_line(f"{self._folder}/{step}"):
            tree = self._manager.restore(step, args=ocp.args.Composite(**{item: restore}))[item]
        return to_memory(flat(tree), like, names)


def check_same(saved: Mapping[str, Leaf], wanted: Mapping[str, Leaf], where: str) -> None:
    """Raises UserError with three lists unless every wanted entry is saved in its shape."""
    missing = [name for name in wanted if name not in saved]
    shapes = [
        f"{name}: saved {tuple(saved[name].shape)}, here {tuple(x.shape)}"
        for name, x in wanted.items()
        if name in saved and tuple(saved[name].shape) != tuple(x.shape)
    ]
    if missing or shapes:
        unused = [name for name in saved if name not in wanted]
        fits = len(wanted) - len(missing) - len(shapes)
        raise UserError(
            f"{where} is of another architecture: restored {fits}; fresh {len(missing)} "
            f"{shorten(missing)}; unused {len(unused)} {shorten(unused)}; other shapes "
            f"{len(shapes)} {shorten(shapes)}; use the configuration that the checkpoint was "
            "trained with (its MODEL_DIR/config.gin) or another MODEL_DIR"
        )


def shorten(names: Sequence[str], limit: int = 4) -> str:
    """A list for a one-line message."""
    shown = ", ".join(names[:limit])
    return f"[{shown}{', …' if len(names) > limit else ''}]"


def slots(opt_state: optax.OptState) -> dict[str, jax.Array]:
    """{readable path: array} of an optimizer state, in flattening order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(opt_state)
    return {"/".join(_name(key) for key in path): leaf for path, leaf in leaves}


def _name(key: object) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
