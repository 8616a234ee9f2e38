"""Initial parameters: from checkpoints and published models where named, drawn anew where allowed.

Whatever the source, each array is read straight into its shards (reading.py), int8 ones from
floating-point tensors too.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from ilm_jax.checkpoints.checkpoints import InitFrom, check_same, shorten
from ilm_jax.checkpoints.fingerprints import fingerprint
from ilm_jax.checkpoints.layout import disk_layout, disk_names, is_stacked
from ilm_jax.checkpoints.lineage import check_held, check_lineage
from ilm_jax.checkpoints.published.configs import differing
from ilm_jax.checkpoints.published.entries import with_int8
from ilm_jax.checkpoints.published.sources import (
    Opened,
    describe_objective,
    is_adapter,
    open_source,
)
from ilm_jax.checkpoints.reading import read_array
from ilm_jax.checkpoints.record import Record
from ilm_jax.errors import UserError
from ilm_jax.models.qformer import TEXT_ONLY_OPTIONS, TEXT_ONLY_PATTERNS
from ilm_jax.objectives.objective import Objective
from ilm_jax.sharding.freezing import matches
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.sharding.state import FlatParams, Variable, initialise, param_shardings

# From (all parameters, the paths of those that were drawn) to the parameters, and report lines.
Start = Callable[[FlatParams, Sequence[str]], tuple[FlatParams, list[str]]]


def load_sources(
    objective: Objective,
    variables: Mapping[str, Variable],
    sources: Sequence[InitFrom],
    allow_fresh: Sequence[str],
    partitioner: Partitioner,
    key: jax.Array,
    made_from: Record | None = None,
    start: Start | None = None,
) -> tuple[FlatParams, str]:
    """Reads parameters from `sources` (the first that holds one wins) and draws the others.

    `made_from` is the record of the run that takes them, to be compared with the sources' own, and
    `start` what sets drawn ones from data.

    Returns:
      The parameters on the mesh, and a report of three lists: restored, fresh, unused.

    Raises:
      UserError: if a parameter would start fresh or go unused without leave, or shapes differ.
    """
    shardings = param_shardings(variables, partitioner)
    wanted = {
        path: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=shardings[path])
        for path, v in variables.items()
    }
    names = disk_names(wanted)
    params: FlatParams = {}
    lines = []
    for source in sources:
        candidates = {path: x for path, x in wanted.items() if path not in params}
        restored, line = _read_source(
            source, candidates, names, objective, allow_fresh, made_from or {}
        )
        params |= restored
        lines.append(line)
    fresh = [path for path in wanted if path not in params]
    surprise = [path for path in fresh if sources and not matches(path, allow_fresh)]
    if surprise:
        raise UserError(
            f"no source holds {len(surprise)} parameters {shorten(surprise)} (restored "
            f"{len(params)}): add a source to TrainerConfig.init, or let them start fresh by "
            "TrainerConfig.allow_fresh"
        )
    if made_from is not None:
        for source in sources:
            check_held(source, fresh, objective)
    lines.append(f"  fresh {len(fresh)} {shorten(fresh) if sources else ''}".rstrip())
    params |= initialise(objective, variables, fresh, partitioner, key)
    if start is not None:
        params, told = start(params, fresh)
        lines += told
    lines += [line for source in sources for line in _other_base(source, params)]
    return params, "\n".join(lines)


def _other_base(source: InitFrom, params: FlatParams) -> list[str]:
    """A line where low-rank updates of an adapter's folder lie on other weights than they did."""
    if not is_adapter(source.path):
        return []
    opened = open_source(source.path, source.top, source.step)
    there = opened.meta.get("base_model", {}).get("fingerprint")
    names = disk_names(params)
    base = {
        path: x
        for path, x in params.items()
        if path.startswith("lm/") and not any(name in opened.entries for name in names[path])
    }
    # What was drawn and stayed frozen is part of what it was trained on.
    base |= {path: x for path, x in params.items() if opened.drawn.issuperset(names[path])}
    if not there or not base or not any("/lora_" in name for name in opened.entries):
        return []
    here = fingerprint(base)
    if here == there:
        return []
    return [
        f"  warning: {source.path} was trained on other frozen weights (fingerprint {there}, here "
        f"{here}): another model, or the same in another type"
    ]


def _read_source(
    source: InitFrom,
    wanted: Mapping[str, jax.ShapeDtypeStruct],
    names: Mapping[str, list[str]],
    objective: Objective,
    allow_fresh: Sequence[str],
    made_from: Record,
) -> tuple[FlatParams, str]:
    target = objective.configs.get(source.top)
    opened = open_source(source.path, source.top, source.step, target)
    asked = {p: x for p, x in wanted.items() if matches(p, source.parameters)}
    reads_text = any(matches(path, TEXT_ONLY_PATTERNS) for path in asked)
    without = {} if reads_text else {"qformer": TEXT_ONLY_OPTIONS}
    _check_config(opened, describe_objective(objective), source, without)
    saved = with_int8(opened.entries, {name for path in asked for name in names[path]})
    chosen = {path: x for path, x in asked.items() if any(name in saved for name in names[path])}
    check_lineage(opened, source, list(chosen), made_from)
    check_same(saved, disk_layout(chosen, names), opened.where)
    used = {name for path in chosen for name in names[path]}
    # A published model is read whole: it has no tensor by chance.
    entries = [name for name in saved if name not in used and matches(name, source.parameters)]
    unused = entries + opened.left_over
    surprise = [name for name in unused if not matches(name, source.allow_unused)]
    due = {name for path in asked if not matches(path, allow_fresh) for name in names[path]}
    lacking = [f"{name} ({tensor})" for name, tensor in opened.lacking.items() if name in due]
    if asked and not chosen and not lacking:
        raise UserError(
            f"{opened.where} does not fit: it holds none of the {len(asked)} parameters that are "
            f"read from it {shorten(sorted(asked))}: is it another kind of model? Name one that "
            "holds them, or correct InitFrom.parameters"
        )
    if surprise or lacking or not chosen:
        fresh = lacking or [path for path in asked if path not in chosen]
        raise UserError(
            f"{opened.where} does not fit: restored {len(chosen)} {shorten(sorted(chosen))}; fresh "
            f"{len(fresh)} {shorten(fresh)}; unused {len(surprise)} {shorten(surprise)}; correct "
            "InitFrom.parameters or allow_unused, or use the architecture it was trained with"
        )
    params = {
        path: read_array([saved[name] for name in names[path]], x, stacked=is_stacked(path, names))
        for path, x in chosen.items()
    }
    line = f"  restored {len(chosen)} from {opened.where}; {len(unused)} there are left unused"
    return params, "\n".join([line, *(f"  {note}" for note in opened.notes)])


def _check_config(
    opened: Opened,
    configs: Mapping[str, tuple[str, dict[str, Any]]],
    source: InitFrom,
    without: Mapping[str, Sequence[str]],
) -> None:
    """Raises UserError where a model there is another one than the recipe's of the same name.

    Shapes alone would not show it: a wavelength of the rotary positions has none.

    Args:
      opened, configs, source: what is there, what the recipe says, and what is read.
      without: {top key: options that no parameter which is read depends on}.
    """
    for top, (kind, found) in opened.configs.items():
        if top not in configs or not any(matches(f"{top}/", [p]) for p in source.parameters):
            continue
        here_kind, here = configs[top]
        if kind != here_kind:
            raise UserError(f"{opened.where} holds a {kind}, and the recipe a {here_kind}")
        changed = differing(found, here)
        scaled = any(name.startswith(f"{top}/") and "/lora_" in name for name in opened.entries)
        if scaled and found.get("lora_alpha") != here.get("lora_alpha"):
            # What the low-rank updates there are multiplied by; their rank shows in their shapes.
            changed["lora_alpha"] = (found.get("lora_alpha"), here.get("lora_alpha"))
        changed = {n: both for n, both in changed.items() if n not in without.get(top, ())}
        if changed:
            shown = ", ".join(f"{n} {a!r} (here {b!r})" for n, (a, b) in changed.items())
            bindings = " ".join(f"--gin.{kind}.{name}={a!r}" for name, (a, _) in changed.items())
            raise UserError(
                f"{opened.where} is another {kind} than the recipe's: {shown}; bind what it was "
                f"trained with ({bindings}), or take model.gin from `ilm convert`"
            )
