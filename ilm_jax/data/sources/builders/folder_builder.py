"""TFDS builders of the datasets that are read from a folder of the user's."""

import tensorflow_datasets as tfds

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.sources import families
from ilm_jax.data.sources.builders.catalogue_builder import CatalogueBuilder
from ilm_jax.errors import UserError


class FolderBuilder(CatalogueBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Base: the family of the same name says how its folder is read."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "A folder with the raw files."

    @classmethod
    def config(cls, release: str) -> tfds.core.BuilderConfig:
        """The configuration of a release; "default" stands for the family's bare name."""
        return tfds.core.BuilderConfig(name=release or "default", description=release)

    def _catalogue(self, dl_manager: tfds.download.DownloadManager) -> Catalogue:
        family, name = families.FAMILIES[self.name], self.builder_config.name
        release = "" if name == "default" and "default" not in family.releases else name
        dataset = f"{self.name}/{release}".rstrip("/")
        try:
            folder = str(dl_manager.manual_dir)
        except AssertionError:  # TFDS's way to say that no folder was given, or an empty one
            raise UserError(
                f"{dataset} is read from a folder with its raw files: give it as --data_dir"
            ) from None
        assert family.read is not None
        self.sources = dict(family.sources(dataset, release, folder))
        return family.read(folder, dataset)


class OpenP5(FolderBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Users' items in time order, as OpenP5 and P5 publish them, after 5-core."""

    name = "openp5"
    VERSION = tfds.core.Version(families.FAMILIES["openp5"].version)


class Custom(FolderBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A user's own interactions and items."""

    name = "custom"
    VERSION = tfds.core.Version(families.FAMILIES["custom"].version)


class Amazon(FolderBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Amazon product reviews with metadata, 2014 or 2018, after 5-core."""

    name = "amazon"
    VERSION = tfds.core.Version(families.FAMILIES["amazon"].version)


class Regen(FolderBuilder, skip_registration=True):  # type: ignore[call-arg]
    """REGEN's purchases with critiques and narratives."""

    name = "regen"
    VERSION = tfds.core.Version(families.FAMILIES["regen"].version)
