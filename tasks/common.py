"""SeqIO glue: our examples as SeqIO Tasks, and a Task's examples as plain NumPy for the cache.

TensorFlow and SeqIO are imported inside functions. Python builds examples in batches within one
`tf.numpy_function`, each feature as bytes, since TensorFlow's cost per Python call and per element
exceeds that of the work.
"""

import contextvars
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ilm_jax.data.examples.example import Example
from ilm_jax.data.examples.task_keys import task_key
from ilm_jax.data.examples.task_settings import SPLITS, TaskSettings
from ilm_jax.data.examples.task_specs import Examples, TaskSpec
from ilm_jax.data.streams.streams import Mixture
from ilm_jax.data.tokenizers import Tokenizer, chat_of
from ilm_jax.metrics import seqio_metrics

if TYPE_CHECKING:
    import seqio

_BATCH = 256
# Which rows of the split a source gives while a dataset is made; None: all.
_ROWS: contextvars.ContextVar[range | None] = contextvars.ContextVar("rows", default=None)
# (key, examples) of every Task that is registered from here, by name.
_registered: dict[str, tuple[str, Examples]] = {}


def seqio_vocabulary(tokenizer: Tokenizer) -> "seqio.Vocabulary":
    """Any of our tokenizers in SeqIO's interface."""
    import seqio
    import tensorflow as tf

    class Vocabulary(seqio.Vocabulary):
        bos_id, eos_id, unk_id = tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id
        pad_id = tokenizer.pad_id
        _base_vocab_size = tokenizer.vocab_size
        fingerprint = tokenizer.fingerprint

        def _encode(self, s: str) -> list[int]:
            return tokenizer.encode(s)

        def _decode(self, ids: Iterable[int]) -> str:
            return tokenizer.decode(ids)

        def _encode_tf(self, s: Any) -> Any:
            def encode(text: bytes | np.ndarray) -> np.ndarray:
                """Ids of UTF-8 bytes."""
                plain = np.asarray(text, object).item()  # eager calls bring an array
                return np.array(tokenizer.encode(plain.decode()), np.int32)

            ids = tf.numpy_function(encode, [tf.convert_to_tensor(s)], tf.int32, stateful=False)
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
        key = task_key(
            examples.spec, settings, fingerprint, tokenizer.fingerprint, chat_of(tokenizer)
        )
        names.append(name)
        if name in _registered and _registered[name][0] == key:
            continue
        if name in seqio.TaskRegistry.names():
            seqio.TaskRegistry.remove(name)
        _add(name, examples, tokenizer)
        _registered[name] = key, examples
    return names


def registered(name: str) -> Examples:
    """The examples of the task registered under a name."""
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
        "targets": seqio_vocabulary(tokenizer),
        "text": seqio_vocabulary(tokenizer),
        "inputs": seqio_vocabulary(tokenizer),
    }
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(
            _index_reader(indices), splits=list(SPLITS), num_input_examples=sizes
        ),
        preprocessors=[_build_step(examples)],
        output_features={
            feature: seqio.Feature(
                vocabularies.get(feature, seqio.PassThroughVocabulary(2**31 - 1)),
                add_eos=False,
                rank=ranks[kind],
            )
            for feature, kind in examples.spec.features
            if kind in ranks
        },
        metric_fns=seqio_metrics.metric_fns(examples.spec.metrics),
    )


def _index_reader(indices: dict[str, dict[str, np.ndarray]]) -> Callable:
    """The source: one vector of integers per example, the number of the split first."""

    def read(split: str, shuffle_files: bool = False, seed: int | None = None) -> Any:
        """seqio's dataset_fn: the split's index columns, of this worker's rows alone."""

        import tensorflow as tf

        columns = [column.astype(np.int64) for column in indices[split].values()]
        rows = _ROWS.get()
        if rows is not None:
            columns = [column[rows.start : rows.stop] for column in columns]
        numbers = np.full_like(columns[0], SPLITS.index(split))
        return tf.data.Dataset.from_tensor_slices({"index": np.stack([numbers, *columns], 1)})

    return read


def _build_step(examples: Examples) -> Callable:
    """The preprocessor: from an example's integers to its features."""
    features = examples.spec.features
    names = list(examples.index(SPLITS[0]))

    def build(index: np.ndarray) -> list[np.ndarray]:
        """The examples of these indices, as flat tensors in order of the features."""
        built = [
            examples.build(SPLITS[number], **dict(zip(names, row, strict=True)))
            for number, *row in index.tolist()
        ]
        tensors = []
        for name, kind in features:
            tensors += _flat(kind, [example[name] for example in built])
        return tensors

    def step(dataset: Any) -> Any:
        """Index batches to batches of features."""

        import tensorflow as tf

        types = []
        for _, kind in features:
            types += {"ints": [tf.int32] * 2, "int": [tf.int32], "text": [tf.string]}[kind]

        def whole(batch: dict[str, Any]) -> dict[str, Any]:
            """One batch, built in Python."""
            tensors = tf.numpy_function(build, [batch["index"]], types, stateful=False)
            for tensor in tensors:
                tensor.set_shape([None])
            found = iter(tensors)
            return {name: _stacked(kind, found) for name, kind in features}

        # Rows of ragged batches are typed as ragged of rank 0; SeqIO's own next map makes plain
        # tensors of them, and another one here would cost a third of the whole.
        return dataset.batch(_BATCH).map(whole).unbatch()

    return step


def _flat(kind: str, column: list[Any]) -> list[np.ndarray]:
    """A feature of a batch as vectors: values, and for arrays their lengths."""
    if kind == "text":
        return [np.array([text.encode() for text in column], object)]
    if kind == "int":
        return [np.array(column, np.int32)]
    values = np.array(list(itertools.chain.from_iterable(column)), np.int32)
    return [values, np.array(list(map(len, column)), np.int32)]


def _stacked(kind: str, tensors: Iterator[Any]) -> Any:
    """The feature that `_flat` took apart."""
    import tensorflow as tf

    if kind != "ints":
        return next(tensors)
    return tf.RaggedTensor.from_row_lengths(next(tensors), next(tensors), validate=False)


def task_examples(
    name: str, spec: TaskSpec, split: str, rows: range | None = None
) -> Iterator[Example]:
    """Examples of a registered Task in order: int32 arrays, integers and strings.

    Args:
      name: registered.
      spec: of the task.
      split: which split.
      rows: only those of these consecutive numbers; None: all.
    """
    import seqio
    import tensorflow as tf

    token = _ROWS.set(rows)
    try:
        dataset = seqio.get_mixture_or_task(name).get_dataset(
            sequence_length=None, split=split, shuffle=False, num_epochs=1, seed=0
        )
    finally:
        _ROWS.reset(token)
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
