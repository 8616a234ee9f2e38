"""Slips in splits, draws, packing, converters and streams."""

from tests.planted import Fault

_SPLITS = "tests/data/test_splits.py"
_PACKING = "tests/data/test_packing.py -k 'not loss and not stored'"
_CONVERTERS = "tests/data/test_converters.py"
_STREAMS = "tests/data/test_streams.py"

FAULTS = (
    Fault(
        "a template reaches Python's insides",
        "ilm_jax/data/tokenizers/template_sandbox.py",
        "class _Environment(ImmutableSandboxedEnvironment):",
        "class _Environment(jinja2.Environment):",
        "tests/data/test_chat.py -k bad_template",
    ),
    Fault(
        "bos is written by the template and by the row",
        "ilm_jax/data/examples/prompt_tokens.py",
        "opening = int(self._chat is not None and self.tokenizer.bos_id is not None)",
        "opening = 0",
        "tests/data/test_chat.py -k bos",
    ),
    Fault(
        "a cache of another template is read",
        "ilm_jax/data/examples/task_keys.py",
        "*([chat_fingerprint] if chat_fingerprint and has_prompts(spec) else []),",
        "*[],",
        "tests/tasks/test_chat_tasks.py -k key",
    ),
    Fault(
        "training sees the validation target",
        "ilm_jax/data/catalogue/splits.py",
        "return sequence[:-2] if len(sequence) >= 3 else sequence",
        "return sequence[:-1] if len(sequence) >= 3 else sequence",
        _SPLITS,
    ),
    Fault(
        "the mask of training is one too long",
        "ilm_jax/data/catalogue/splits.py",
        "np.where(lengths >= 3, lengths - 2, lengths)",
        "np.where(lengths >= 3, lengths - 1, lengths)",
        _SPLITS,
    ),
    Fault(
        "a test history lacks the validation target",
        "ilm_jax/data/catalogue/splits.py",
        "(sequence[:-1], int(sequence[-1]))",
        "(sequence[:-2], int(sequence[-1]))",
        _SPLITS,
    ),
    Fault(
        "users of two interactions have targets",
        "ilm_jax/data/catalogue/splits.py",
        "return (sequence[:-2], int(sequence[-2])) if len(sequence) >= 3",
        "return (sequence[:-2], int(sequence[-2])) if len(sequence) >= 2",
        _SPLITS,
    ),
    Fault(
        "folds are the same for every seed",
        "ilm_jax/data/catalogue/splits.py",
        'f"{config.seed}:{family}:{raw}"',
        'f"0:{family}:{raw}"',
        _SPLITS,
    ),
    Fault(
        "test items are half as many",
        "ilm_jax/data/catalogue/splits.py",
        "share < 2 * config.held_out_items",
        "share < 1.5 * config.held_out_items",
        _SPLITS,
    ),
    Fault(
        "folds differ between sizes of one source",
        "ilm_jax/data/catalogue/splits.py",
        'name.split("/")[0]',
        "name",
        _SPLITS,
    ),
    Fault(
        "keys run together",
        "ilm_jax/data/draws.py",
        'json.dumps(plain, separators=(",", ":"))',
        '"".join(map(str, plain))',
        "tests/data/test_draws.py",
    ),
    Fault(
        "a normal draw's angle goes half round",
        "ilm_jax/data/draws.py",
        "np.cos(2.0 * np.pi * second)",
        "np.cos(np.pi * second)",
        "tests/data/test_draws.py",
    ),
    Fault(
        "entities of a packed row overlap",
        "ilm_jax/data/streams/packing.py",
        "np.where(slot >= 0, slot + entities, -1)",
        "np.where(slot >= 0, slot, -1)",
        _PACKING,
    ),
    Fault(
        "packed examples are one segment",
        "ilm_jax/data/streams/packing.py",
        'blank["segment_ids"][where] = i + 1',
        'blank["segment_ids"][where] = 1',
        _PACKING,
    ),
    Fault(
        "the targets of a row have no bound",
        "ilm_jax/data/streams/packing.py",
        "(left >= needs[example]).all(axis=1)",
        "(left >= needs[example])[:, [0, 2, 3]].all(axis=1)",
        _PACKING,
    ),
    Fault(
        "content is lost where rows are packed",
        "ilm_jax/data/streams/packing.py",
        '                "content_weights",\n                "positions",',
        '                "positions",',
        _PACKING,
    ),
    Fault(
        "the last token of the prompt is a target",
        "ilm_jax/data/streams/converters.py",
        'batch["loss_weights"][row, read - 1 : end] = 1',
        'batch["loss_weights"][row, max(read - 2, 0) : end] = 1',
        _CONVERTERS,
    ),
    Fault(
        "the first target has no weight",
        "ilm_jax/data/streams/converters.py",
        'batch["loss_weights"][row, read - 1 : end] = 1',
        'batch["loss_weights"][row, read:end] = 1',
        _CONVERTERS,
    ),
    Fault(
        "content is one token late",
        "ilm_jax/data/streams/converters.py",
        'batch["content_weights"][row, read - 1 : end] = content',
        'batch["content_weights"][row, read:end] = content[:-1]',
        _CONVERTERS,
    ),
    Fault(
        "the newest history is dropped",
        "ilm_jax/data/streams/converters.py",
        "inputs = np.concatenate([inputs[:start], inputs[cut:]])",
        "end = bounds[-1]\n                "
        "inputs = np.concatenate([inputs[: end - (cut - start)], inputs[end:]])",
        _CONVERTERS,
    ),
    Fault(
        "slots of dropped history stay",
        "ilm_jax/data/streams/converters.py",
        "gone = slice(slots_before[start], slots_before[cut])",
        "gone = slice(slots_before[start], slots_before[start])",
        _CONVERTERS,
    ),
    Fault(
        "a slot's queries are numbered through the row",
        "ilm_jax/data/streams/converters.py",
        "np.arange(total) - np.repeat(np.cumsum(width) - width, width)",
        "np.arange(total)",
        _CONVERTERS,
    ),
    Fault(
        "a higher temperature sharpens",
        "ilm_jax/data/streams/streams.py",
        "** (1 / self.temperature)",
        "** self.temperature",
        _STREAMS,
    ),
    Fault(
        "the cap bounds the tempered rate",
        "ilm_jax/data/streams/streams.py",
        "min(sizes[name], self.cap or sizes[name]) ** (1 / self.temperature)",
        "min(sizes[name] ** (1 / self.temperature), self.cap or sizes[name])",
        _STREAMS,
    ),
    Fault(
        "tasks are shuffled alike",
        "ilm_jax/data/streams/streams.py",
        'draws.integer(2**31, seed, "shuffle", name)',
        'draws.integer(2**31, seed, "shuffle")',
        _STREAMS,
    ),
    Fault(
        "the shuffle has one seed for all runs",
        "ilm_jax/data/streams/streams.py",
        'draws.integer(2**31, seed, "shuffle", name)',
        'draws.integer(2**31, "shuffle", name)',
        _STREAMS,
    ),
)
