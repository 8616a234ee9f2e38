"""TFDS builder `movielens`: GroupLens' releases from a folder of raw files or from the network.

The name is also that of a dataset which ships with TFDS and holds single ratings; this one is not
registered and is used by importing its class.
"""

import pathlib
import urllib.request

import tensorflow_datasets as tfds

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.sources import movielens
from ilm_jax.data.sources.builders.catalogue_builder import CatalogueBuilder
from ilm_jax.errors import UserError

CONNECT_SECONDS = 20


class Movielens(CatalogueBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Ratings of films by users in time order, with each film's title, year, genres and tags."""

    name = "movielens"
    VERSION = tfds.core.Version(movielens.VERSION)
    MANUAL_DOWNLOAD_INSTRUCTIONS = "A folder with the raw files of the release, unpacked."
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=release, description=kind.url)
        for release, kind in movielens.RELEASES.items()
    ]

    @classmethod
    def config(cls, release: str) -> str:
        """The configuration of a release."""
        return release

    def _catalogue(self, dl_manager: tfds.download.DownloadManager) -> Catalogue:
        folder, release = self.raw_folder(dl_manager), self.builder_config.name
        self.sources = movielens.source_hashes(release, folder)
        return movielens.read(release, folder)

    def raw_folder(self, dl_manager: tfds.download.DownloadManager) -> pathlib.Path:
        """The folder of raw files: the manual one if given, else downloaded and unpacked.

        Raises:
          UserError: if there is no such folder and the download fails.
        """
        try:
            return pathlib.Path(dl_manager.manual_dir)
        except AssertionError:  # TFDS's way to say that no folder was given, or an empty one
            pass
        release = movielens.RELEASES[self.builder_config.name]
        try:
            # TFDS retries for minutes where there is no network; ask once, briefly, first.
            ask = urllib.request.Request(release.url, method="HEAD")
            urllib.request.urlopen(ask, timeout=CONNECT_SECONDS).close()
            unpacked = dl_manager.download_and_extract(release.url)
        except (tfds.download.DownloadError, OSError) as error:
            raise UserError(
                f"{release.url}: download failed ({type(error).__name__}); fetch and unpack it "
                "where there is a network, and give its folder as --data_dir"
            ) from error
        return pathlib.Path(unpacked) / release.folder
