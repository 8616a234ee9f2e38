"""TFDS builder `toy`: the generated world, with no raw files and no network."""

import dataclasses

import tensorflow_datasets as tfds

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.sources import toy
from ilm_jax.data.sources.builders.catalogue_builder import CatalogueBuilder


@dataclasses.dataclass
class ToyConfig(tfds.core.BuilderConfig):
    """World number `world`."""

    world: int = 0


class Toy(CatalogueBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A generated world of items and users whose latent factors are known."""

    name = "toy"
    VERSION = tfds.core.Version(toy.VERSION)
    BUILDER_CONFIGS = [ToyConfig(name="world0", description="The default world.")]

    @classmethod
    def config(cls, release: int | str) -> ToyConfig:
        """The configuration of any world, by its number."""
        world = int(release)
        if world == 0:  # TFDS refuses a second object of a listed name
            return cls.BUILDER_CONFIGS[0]
        return ToyConfig(name=f"world{world}", description=f"World {world}.", world=world)

    def _catalogue(self, dl_manager: tfds.download.DownloadManager) -> Catalogue:
        del dl_manager  # nothing to fetch
        return toy.make_world(self.builder_config.world)
