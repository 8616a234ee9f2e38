"""TFDS builders of the datasets that one function reads from a folder."""

import functools

import tensorflow_datasets as tfds

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.sources.builders.catalogue_builder import CatalogueBuilder
from ilm_jax.data.sources.registry import DATASETS
from ilm_jax.errors import UserError


class FolderBuilder(CatalogueBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Base: the source of the same name says how its folder is read."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "A folder with the raw files."

    @classmethod
    def config(cls, release: str) -> tfds.core.BuilderConfig:
        """The configuration of a release; "default" stands for the source's bare name."""
        return tfds.core.BuilderConfig(name=release or "default", description=release)

    def _catalogue(self, dl_manager: tfds.download.DownloadManager) -> Catalogue:
        source, name = DATASETS[self.name], self.builder_config.name
        release = "" if name == "default" and "default" not in source.releases else name
        dataset = f"{self.name}/{release}".rstrip("/")
        assert source.read is not None
        if source.generated:
            return source.read("", dataset)
        try:
            folder = str(dl_manager.manual_dir)
        except AssertionError:  # TFDS's way to say that no folder was given, or an empty one
            raise UserError(
                f"{dataset} is read from a folder with its raw files: give it as --data_dir"
            ) from None
        self.sources = source.hashes(dataset, folder)
        return source.read(folder, dataset)


@functools.cache
def folder_builder(name: str) -> type[FolderBuilder]:
    """The builder's class of a source."""
    source = DATASETS[name]
    return type(
        f"Folder_{name}",
        (FolderBuilder,),
        {
            "__doc__": f"Interactions and items that the source {name} reads.",
            "__module__": __name__,
            "name": name,
            "VERSION": tfds.core.Version(source.version),
        },
        skip_registration=True,
    )  # type: ignore[call-overload, no-any-return]
