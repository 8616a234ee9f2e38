"""Slips in what a run knows of itself: its record, what is finished, whose weights, whole files."""

from tests.planted import Fault

_RECORD = "tests/checkpoints/test_record.py"
_SWEEP = "tests/launch/test_sweep.py"

FAULTS = (
    Fault(
        "any optimizer may go on",
        "ilm_jax/checkpoints/record.py",
        r'r"optimizer\.decay_steps"',
        r'r"optimizer\..*"',
        f"{_RECORD} -k may_not_change",
    ),
    Fault(
        "a task that comes in is no change",
        "ilm_jax/checkpoints/record.py",
        "for key in {**found, **here}:",
        "for key in found:",
        f"{_RECORD} -k may_not_change",
    ),
    Fault(
        "another table may be asked with",
        "ilm_jax/checkpoints/record.py",
        r'USED = (r"data(\..*)?", r"table", r"tokenizer"',
        r'USED = (r"data(\..*)?", r"tokenizer"',
        f"{_RECORD} -k is_used_with",
    ),
    Fault(
        "a run may be asked in another chat template",
        "ilm_jax/checkpoints/record.py",
        r'r"prompts\.(format|template)")',
        r'r"prompts\.format")',
        "tests/tasks/test_chat_tasks.py -k gone_on_with",
    ),
    Fault(
        "more steps stretch the schedule",
        "ilm_jax/training/optimizers.py",
        "self.decay_steps or before or total_steps",
        "self.decay_steps or total_steps",
        f"{_RECORD} -k more_steps",
    ),
    Fault(
        "damaged weights go on",
        "ilm_jax/training/resuming.py",
        'not in ("", fingerprint(state.trainable))',
        "is None",
        f"{_RECORD} -k not_those",
    ),
    Fault(
        "a run that has made more is finished",
        "ilm_jax/training/resuming.py",
        "if (latest or 0) > total:",
        "if (latest or 0) > total + 10:",
        f"{_RECORD} -k may_not_change",
    ),
    Fault(
        "words of other ids are read",
        "ilm_jax/checkpoints/lineage.py",
        'p.startswith("lm/") or "/text_embedding/" in p',
        '"/text_embedding/" in p',
        f"{_RECORD} -k only_what_is_read",
    ),
    Fault(
        "other data of the same name is not looked at",
        "ilm_jax/checkpoints/lineage.py",
        'there.get("data", {}).get(name)',
        "None",
        f"{_RECORD} -k made_from_something",
    ),
    Fault(
        "only the beginning of a published file tells",
        "ilm_jax/checkpoints/identity.py",
        "return first + stream.read()",
        "return first",
        f"{_RECORD} -k identity",
    ),
    Fault(
        "inputs of a finished run are not compared",
        "ilm_jax/training/finished.py",
        '_changed(found["inputs"], inputs or found["inputs"])',
        "changed",
        f"{_SWEEP} -k judged_by",
    ),
    Fault(
        "a begun run of other bindings goes on",
        "ilm_jax/training/finished.py",
        'return Standing("other", changed) if changed else Standing("begun")',
        'return Standing("begun")',
        f"{_SWEEP} -k judged_by",
    ),
    Fault(
        "a table's numbers are not those that were written",
        "ilm_jax/cf/table.py",
        'if "sha256" in header and header["sha256"] != _digest(tensors):',
        "if False:",
        "tests/cf/test_table.py -k one_changed_bit",
    ),
    Fault(
        "rows that have grown count in every block but the first",
        "ilm_jax/cf/table_set.py",
        "numbers[max(0, sizes[name] - part.start) :] = 0",
        "numbers[sizes[name] :] = 0",
        "tests/cf/test_table_set.py -k large_tables",
    ),
    Fault(
        "a large table is held in memory",
        "ilm_jax/cf/row_blocks.py",
        "if size < IN_MEMORY_BYTES:",
        "if True:",
        "tests/cf/test_table_set.py -k above_memory",
    ),
    Fault(
        "a cache's size is believed",
        "ilm_jax/data/streams/cached_task.py",
        'if self.info.get("sha256", "") not in ("", sha256_json(told)):',
        "if False:",
        "tests/data/test_task_cache.py -k no_cache_is_refused",
    ),
    Fault(
        "an outlier is a good checkpoint",
        "ilm_jax/training/health.py",
        '"good": math.isfinite(norm) and not outlier,',
        '"good": math.isfinite(norm),',
        "tests/training/test_divergence.py",
    ),
    Fault(
        "three steps are under way",
        "ilm_jax/training/pacing.py",
        "while len(self._under_way) >= self._most:",
        "while len(self._under_way) > self._most:",
        "tests/training/test_pacing.py",
    ),
    Fault(
        "a checksum does not see where a number stands",
        "ilm_jax/checkpoints/fingerprints.py",
        "(bits ^ (position * xp.uint32(2_654_435_761)))",
        "bits",
        "tests/checkpoints/test_fingerprints.py",
    ),
    Fault(
        "a checksum leaves a part's first row out",
        "ilm_jax/checkpoints/fingerprints.py",
        "index + xp.asarray(start, xp.uint32) if axis == 0 else index",
        "index",
        "tests/checkpoints/test_fingerprints.py",
    ),
)
