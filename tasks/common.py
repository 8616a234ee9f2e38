"""SeqIO glue: our examples as SeqIO Tasks, and a Task's examples as plain NumPy for the cache.

TensorFlow and SeqIO are imported inside functions. Python builds examples in batches within one
`tf.numpy_function`, each feature as bytes, since TensorFlow's cost per Python call and per element
exceeds that of the work.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ilm_jax.data.streams import Mixture
from ilm_jax.data.task_settings import SPLITS, TaskSettings, TaskSpec, task_key
from ilm_jax.data.tokenizer import Tokenizer

if TYPE_CHECKING:
    import seqio

_BATCH = 256
# (key, examples) of every Task that is registered from here, by name.
_registered: dict[str, tuple[str, "Examples"]] = {}


class Examples(Protocol):
    """What a task consists of; pure functions of their arguments."""

    spec: TaskSpec
    splits: Any

    def index(self, split: str) -> dict[str, np.ndarray]:
        """Integer columns; row k names example k of the split."""

    def truncations(self, split: str) -> dict[str, int]:
        """What was cut, by name."""

    def build(self, split: str, **integers: int) -> dict[str, Any]:
        """Features of the example that these integers name."""


def seqio_vocabulary(tokenizer: Tokenizer) -> "seqio.Vocabulary":
    """Our tokenizer in SeqIO's interface."""
    import seqio
    import tensorflow as tf

    class Vocabulary(seqio.Vocabulary):
        """Wraps `ilm_jax.data.tokenizer.Tokenizer`."""

        bos_id, eos_id, unk_id = tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id
        _base_vocab_size = tokenizer.vocab_size
        fingerprint = tokenizer.fingerprint

        def _encode(self, s: str) -> list[int]:
            return tokenizer.encode(s)

        def _decode(self, ids: Iterable[int]) -> str:
            return tokenizer.decode(ids)

        def _encode_tf(self, s: Any) -> Any:
            def encode(text: bytes) -> np.ndarray:
                return np.array(tokenizer.encode(text.decode()), np.int32)

            ids = tf.numpy_function(encode, [s], tf.int32, stateful=False)
            ids.set_shape([None])
            return ids

        def _decode_tf(self, ids: Any) -> Any:
            return tf.numpy_function(
                lambda row: tokenizer.decode(row).encode(), [ids], tf.string, stateful=False
            )

        def __eq__(self, other: object) -> bool:
            return getattr(other, "fingerprint", None) == self.fingerprint

    return Vocabulary()


def register(
    dataset: str, settings: TaskSettings, tasks: Iterable[Examples], tokenizer: Tokenizer
) -> list[str]:
    """Adds each task to SeqIO's registry and returns their names.

    A Task that is registered already with the same content stays; one with another content under
    the same name (other settings) is replaced.
    """
    import seqio

    names = []
    for examples in tasks:
        name = examples.spec.name(dataset)
        fingerprint = examples.splits.catalogue.fingerprint
        key = task_key(examples.spec, settings, fingerprint, tokenizer.fingerprint)
        names.append(name)
        if name in _registered and _registered[name][0] == key:
            continue
        if name in seqio.TaskRegistry.names():
            seqio.TaskRegistry.remove(name)
        _add(name, examples, tokenizer)
        _registered[name] = key, examples
    return names


def registered(name: str) -> Examples:
    """What was registered under a name."""
    return _registered[name][1]


def num_examples(name: str, split: str) -> int:
    """Size of a split of a registered Task."""
    import seqio

    return seqio.get_mixture_or_task(name).num_input_examples(split)


def _add(name: str, examples: Examples, tokenizer: Tokenizer) -> None:
    import seqio

    indices = {split: examples.index(split) for split in SPLITS}
    sizes = {split: len(next(iter(index.values()))) for split, index in indices.items()}
    ranks = {"ints": 1, "int": 0}
    vocabularies = {
        "targets": seqio_vocabulary(tokenizer), "text": seqio_vocabulary(tokenizer),
        "inputs": seqio_vocabulary(tokenizer),
    }  # fmt: skip
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(
            _index_reader(indices), splits=list(SPLITS), num_input_examples=sizes
        ),
        preprocessors=[_build_step(examples)],
        output_features={
            feature: seqio.Feature(
                vocabularies.get(feature, seqio.PassThroughVocabulary(2**31 - 1)),
                add_eos=False, rank=ranks[kind],
            )
            for feature, kind in examples.spec.features if kind in ranks
        },
        metric_fns=[],
    )  # fmt: skip


def _index_reader(indices: dict[str, dict[str, np.ndarray]]) -> Callable:
    def read(split: str, shuffle_files: bool = False, seed: int | None = None) -> Any:
        import tensorflow as tf

        columns = {name: column.astype(np.int64) for name, column in indices[split].items()}
        number = list(indices).index(split)
        dataset = tf.data.Dataset.from_tensor_slices(columns)
        return dataset.map(lambda row: row | {"split": tf.constant(number, tf.int64)})

    return read


def _build_step(examples: Examples) -> Callable:
    """The preprocessor: from an example's integers to its features.

    All arrays of an example cross into TensorFlow as one byte string, their lengths first.
    """
    features = examples.spec.features
    arrays = [name for name, kind in features if kind == "ints"]
    rest = {name: kind for name, kind in features if kind != "ints"}

    def build(split: np.ndarray, names: list[str], columns: list[np.ndarray]) -> list[np.ndarray]:
        rows = zip(*(column.tolist() for column in columns), strict=True)
        built = [
            examples.build(SPLITS[number], **dict(zip(names, row, strict=True)))
            for number, row in zip(split.tolist(), rows, strict=True)
        ]
        packed = [_pack([example[name] for name in arrays]) for example in built]
        return [np.array(packed, object)] + [
            np.array([example[name].encode() for example in built], object)
            if kind == "text" else np.array([example[name] for example in built], np.int32)
            for name, kind in rest.items()
        ]  # fmt: skip

    def step(dataset: Any) -> Any:
        import tensorflow as tf

        types = [tf.string if kind == "text" else tf.int32 for kind in rest.values()]

        def whole(batch: dict[str, Any]) -> dict[str, Any]:
            names = sorted(set(batch) - {"split"})
            packed, *others = tf.numpy_function(
                lambda split, *columns: build(split, names, list(columns)),
                [batch["split"], *(batch[name] for name in names)],
                [tf.string, *types],
                stateful=False,
            )
            for tensor in (packed, *others):
                tensor.set_shape([None])
            return {"arrays": packed, **dict(zip(rest, others, strict=True))}

        def unpack(example: dict[str, Any]) -> dict[str, Any]:
            count = len(arrays)
            values = tf.io.decode_raw(example.pop("arrays"), tf.int32, little_endian=True)
            parts = tf.split(values[count:], values[:count], num=count) if count else []
            return example | dict(zip(arrays, parts, strict=True))

        return dataset.batch(_BATCH).map(whole).unbatch().map(unpack)

    return step


def _pack(arrays: list[list[int]]) -> bytes:
    return np.array(
        [*map(len, arrays), *itertools.chain.from_iterable(arrays)], "<i4"
    ).tobytes()  # fmt: skip


def task_examples(name: str, spec: TaskSpec, split: str) -> Iterator[dict[str, Any]]:
    """All examples of a registered Task in order: int32 arrays, integers and strings."""
    import seqio
    import tensorflow as tf

    dataset = seqio.get_mixture_or_task(name).get_dataset(
        sequence_length=None, split=split, shuffle=False, num_epochs=1, seed=0
    )
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = 1
    for batch in dataset.ragged_batch(_BATCH).with_options(options):
        columns = [_column(batch[feature], kind) for feature, kind in spec.features]
        for values in zip(*columns, strict=True):
            yield {feature: v for (feature, _), v in zip(spec.features, values, strict=True)}


def _column(tensor: Any, kind: str) -> list[Any]:
    if kind == "ints":
        values, bounds = tensor.values.numpy(), tensor.row_splits.numpy().tolist()
        return [values[start:end] for start, end in itertools.pairwise(bounds)]
    if kind == "int":
        return tensor.numpy().tolist()
    return [value.decode() for value in tensor.numpy()]


def register_mixture(name: str, mixture: Mixture) -> None:
    """Registers registered Tasks as a SeqIO Mixture with the shares that `mixture` gives them.

    Raises:
      UserError: as `Mixture.weights`.
    """
    import seqio

    sizes = {task: num_examples(task, "train") for task in mixture.rates}
    if name in seqio.MixtureRegistry.names():
        seqio.MixtureRegistry.remove(name)
    seqio.MixtureRegistry.add(name, list(mixture.weights(sizes).items()))
