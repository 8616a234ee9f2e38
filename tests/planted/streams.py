"""Slips in streams, shared rows and readers."""

from tests.planted import Fault

_PACKING = "tests/data/test_packing.py -k 'not loss and not stored'"
_STREAMS = "tests/data/test_streams.py"
_ITEMS = "tests/data/test_item_targets.py"

FAULTS = (
    Fault(
        "entities of a packed row overlap",
        "ilm_jax/data/streams/packing.py",
        "np.where(slot < 0, -1, slot + earlier[example])",
        "np.where(slot < 0, -1, slot)",
        _PACKING,
    ),
    Fault(
        "packed examples are one segment",
        "ilm_jax/data/streams/packing.py",
        "1 + before(np.ones_like(rows), rows)[example]",
        "1",
        _PACKING,
    ),
    Fault(
        "the targets of a row have no bound",
        "ilm_jax/data/streams/packing_plan.py",
        "left[1] >= targets and ",
        "",
        _PACKING,
    ),
    Fault(
        "a plan that goes on forgets what rows are open",
        "ilm_jax/data/streams/packing_plan.py",
        "self._open = [held[end - n : end].tolist()",
        "self._open = [[]",
        "tests/data/test_packing.py -k stopped_plan",
    ),
    Fault(
        "a plan is stored without a word of its open rows",
        "ilm_jax/data/streams/packing_plan.py",
        "self._left, self._placed, self._stored = left.tolist(), len(placed), len(placed)",
        "self._left, self._placed, self._stored = left.tolist(), len(order), len(order)",
        "tests/data/test_packing.py -k stopped_plan",
    ),
    Fault(
        "every epoch is in the order of the first",
        "ilm_jax/data/streams/streams.py",
        "seed = (self._seed + epoch) % 2**32",
        "seed = self._seed",
        _STREAMS,
    ),
    Fault(
        "Ctrl-C ends the readers before the trainer's step",
        "ilm_jax/data/streams/readers.py",
        "signal.signal(asked, signal.SIG_IGN)",
        "pass",
        "tests/data/test_readers.py -k several_processes",
    ),
    Fault(
        "readers read the rows of the batch before",
        "ilm_jax/training/feeding.py",
        "rows = processes.submit(kind, first + local)",
        "rows = processes.submit(kind, max(0, first - batch_size) + local)",
        "tests/data/test_readers.py -k same_order",
    ),
    Fault(
        "content is lost where rows are packed",
        "ilm_jax/data/streams/packing.py",
        '    "content_weights",\n    "positions",',
        '    "positions",',
        _PACKING,
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
    Fault(
        "a shared row's items are asked for at their own rows' places",
        "ilm_jax/data/streams/packing.py",
        'single["item_positions"][asked] + start[example]',
        'single["item_positions"][asked]',
        _ITEMS,
    ),
    Fault(
        "turns read the same block again",
        "ilm_jax/data/streams/streams.py",
        "times * self._block + place",
        "place",
        "tests/data/test_redrawing.py -k turns",
    ),
    Fault(
        "what stands in front of an entry is counted over all rows",
        "ilm_jax/data/streams/local_rows.py",
        "return total - total[np.searchsorted(rows, rows)]",
        "return total",
        "tests/data/test_converters.py -k alone",
    ),
    Fault(
        "an example's slots need not be those of its inputs",
        "ilm_jax/data/streams/fitting.py",
        "if (told := np.count_nonzero(inputs < 0)) != len(slots):",
        "if (told := 0) != 0:",
        "tests/data/test_converters.py -k contradicts",
    ),
)
