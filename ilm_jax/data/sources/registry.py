"""The sources of datasets: ours, and those that a user's module registers. TensorFlow-free."""

from ilm_jax import user_modules
from ilm_jax.data.sources.dataset_source import DatasetSource
from ilm_jax.errors import UserError
from ilm_jax.registry import Registry

DATASETS: Registry[DatasetSource] = Registry("dataset")
for _name, _module in {
    "toy": "toy",
    "movielens": "movielens",
    "openp5": "user_sequences",
    "amazon": "amazon",
    "amazon2023": "amazon2023",
    "steam": "steam",
    "goodreads": "goodreads",
    "yelp": "yelp",
    "regen": "regen",
    "custom": "custom",
}.items():
    DATASETS.register(_name, f"ilm_jax.data.sources.{_module}:SOURCE")


def register_dataset(source: DatasetSource) -> None:
    """Adds a source of datasets; a recipe that imports the calling module can name them.

    Processes that prepare data import the calling module, too.

    Raises:
      UserError: if there is a source of this name, or it says no way to read.
    """
    if source.read is None:
        raise UserError(f"dataset {source.name}: give a function `read`")
    DATASETS.register(source.name, source)
    user_modules.note_caller()


def source_of(dataset: str) -> DatasetSource:
    """The source of a dataset.

    Raises:
      UserError: if there is no such dataset.
    """
    name = dataset.partition("/")[0]
    if name in DATASETS and DATASETS[name].release(dataset) is not None:
        return DATASETS[name]
    raise UserError(f"no dataset {dataset!r}; there are {', '.join(known_names())}")


def check_name(dataset: str) -> tuple[str, str]:
    """Splits a dataset name into (source, release or world number).

    Raises:
      UserError: if there is no such dataset.
    """
    source = source_of(dataset)
    return source.name, source.release(dataset) or ""


def known_names() -> list[str]:
    """Every dataset, or an example of each pattern."""
    return [name for source in DATASETS for name in DATASETS[source].names()]
