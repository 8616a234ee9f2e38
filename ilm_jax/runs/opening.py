"""From a folder or recipes to a run, and to the model that it trained."""

import dataclasses
import os
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from ilm_jax.checkpoints import record
from ilm_jax.checkpoints.checkpoints import Checkpoints, InitFrom
from ilm_jax.checkpoints.fingerprints import fingerprint
from ilm_jax.checkpoints.identity import of_meta
from ilm_jax.checkpoints.layout import disk_names
from ilm_jax.checkpoints.loading import load_sources
from ilm_jax.errors import UserError
from ilm_jax.evaluation.trained import TrainedModel
from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run
from ilm_jax.sharding.freezing import count, matches, split_by_patterns
from ilm_jax.sharding.state import FlatParams, describe_variables, nested
from ilm_jax.training.host_memory import keep_freed_memory

Bindings = Mapping[str, object] | Sequence[str]


def run_of_recipe(
    recipes: str | Sequence[str], bindings: Bindings = (), search_paths: Sequence[str] = ()
) -> Run:
    """The run that recipes describe.

    Args:
      recipes: found in the current folder, `search_paths` or among the shipped ones, such as
        "tiny/stage1.gin"; later ones override.
      bindings: {name: value}, or texts "NAME=VALUE" as on the command line.
      search_paths: folders in which recipes and their includes are looked for.

    Raises:
      UserError: as `gin_config.build`.
    """
    keep_freed_memory()
    files = [recipes] if isinstance(recipes, str) else list(recipes)
    return gin_config.build(Run, files, as_texts(bindings), search_paths)


def run_of_folder(model_dir: str | os.PathLike, bindings: Bindings = ()) -> Run:
    """The run of a MODEL_DIR, as its config.gin and further bindings describe it.

    Raises:
      UserError: if the folder is none of a run.
    """
    config = pathlib.Path(model_dir) / "config.gin"
    if not config.is_file():
        raise UserError(f"{model_dir} holds no config.gin: {_instead(pathlib.Path(model_dir))}")
    here = f"MODEL_DIR={os.fspath(model_dir)!r}"
    given = _in_every_scope(gin_config.bindings_of(config.read_text()), as_texts(bindings))
    return run_of_recipe(str(config), [here, *given])


def _in_every_scope(known: Mapping[str, str], bindings: Sequence[str]) -> list[str]:
    """The bindings, those of a parameter for each scope too in which it is bound already.

    A config.gin says scope by scope what the parts of a run consumed: what is bound without a
    scope would change nothing there.
    """
    scopes = [(scope, bare) for scope, _, bare in (name.rpartition("/") for name in known) if scope]
    found = []
    for binding in bindings:
        name = binding.partition("=")[0].strip()
        found.append(binding)
        if "." in name and "/" not in name:
            found += [f"{s}/{binding}" for s, bare in scopes if f".{bare}".endswith(f".{name}")]
    return found


def _instead(path: pathlib.Path) -> str:
    """What lies at a path that is no run's."""
    if not path.exists():
        return "there is nothing; name the MODEL_DIR of a run"
    if any((path / name).is_file() for name in ("conversion.json", "config.json")):
        return "it is a language model, not the MODEL_DIR of a run (`ilm infer --lm=…` asks it)"
    return "is it the MODEL_DIR of a run?"


def as_texts(bindings: Bindings) -> list[str]:
    """Bindings as gin reads them; paths become texts."""
    if not isinstance(bindings, Mapping):
        return list(bindings)
    plain = {n: os.fspath(v) if isinstance(v, os.PathLike) else v for n, v in bindings.items()}
    return [f"{name}={value!r}" for name, value in plain.items()]


def load_trained(run: Run, step: int | str = "best") -> TrainedModel:
    """Loads what a run trained, and the frozen weights that it names.

    Raises:
      UserError: for a run without a language model, a missing checkpoint, or frozen weights that
        have changed.
    """
    if run.objective.language is None:
        raise UserError(
            f"{run.model_dir} has no language model, as a stage-1 run: evaluate a stage-2 run"
        )
    checkpoints = Checkpoints(run.model_dir)
    found = checkpoints.resolve(step)
    meta = checkpoints.meta(found)
    checkpoints.close()
    joined = run.keep_trained_rows(meta.get("made_from"))
    for line in record.check_use(meta.get("made_from"), run.made_from(), run.model_dir, joined):
        print(line, file=sys.stderr)
    objective = run.sized_objective.language
    assert objective is not None
    variables = describe_variables(objective)
    trainable, frozen = split_by_patterns(variables, run.trainer.trains)
    sources = _sources(run, found, meta, trainable, frozen)
    params, _ = load_sources(objective, variables, sources, (), run.partitioner, jax.random.key(0))
    _check_bits(
        run.model_dir, meta, {p: params[p] for p in frozen}, {p: params[p] for p in trainable}
    )
    return TrainedModel(
        model_dir=run.model_dir,
        step=found,
        objective=objective,
        params=nested(params),
        partitioner=run.partitioner,
        data=run.dataset,
        open_feed=run.feed,
        splits=run.splits,
        splits_of=run.splits_of,
        tokenizer=run.tokenizer,
        stop_ids=run.stop_ids,
        tables=run.tables,
        trainable_params=count(trainable),
        frozen_params=count(frozen),
        identity=of_meta(meta),
    )


def _sources(
    run: Run,
    step: int,
    meta: Mapping[str, Any],
    trainable: Mapping[str, Any],
    frozen: Mapping[str, Any],
) -> list[InitFrom]:
    """The run's checkpoint, and where the rest came from that it does not hold."""
    names, drawn = disk_names({**trainable, **frozen}), set(meta.get("drawn", []))
    lacking = [path for path in frozen if not drawn.issuperset(names[path])]
    # A source may hold more than was frozen: the run has its own of what it trained.
    trained = tuple(f"^{re.escape(path)}$" for path in trainable)
    return [
        InitFrom(run.model_dir, step=step),
        *(
            dataclasses.replace(source, allow_unused=(*source.allow_unused, *trained))
            for source in run.trainer.init
            if any(matches(path, source.parameters) for path in lacking)
        ),
    ]


def _check_bits(
    model_dir: str, meta: Mapping[str, Any], frozen: FlatParams, trained: FlatParams
) -> None:
    if meta["frozen"] != fingerprint(frozen):
        raise UserError(
            f"the frozen weights named in {model_dir}/config.gin are not those that it was "
            "trained with: restore them, or train again"
        )
    if meta.get("weights", "") not in ("", fingerprint(trained)):
        raise UserError(
            f"{model_dir}: its checkpoint is damaged: the weights are not those that were saved"
        )
