"""Archives that are fetched from their publisher, once."""

import contextlib
import http.client
import pathlib
import shutil
import tempfile
import urllib.request
import zipfile

from ilm_jax.errors import UserError
from ilm_jax.files import atomic_dir

SECONDS = 20
"""To wait for an answer."""


def unpacked(url: str, folder: pathlib.Path) -> pathlib.Path:
    """The folder in which a zip archive lies unpacked.

    Args:
      url: of the archive.
      folder: where it is kept, under the archive's name.

    Raises:
      UserError: if it is not there and cannot be fetched.
    """
    target = folder / url.rsplit("/", 1)[1].removesuffix(".zip")
    if target.is_dir():
        return target
    failed = (OSError, http.client.HTTPException, zipfile.BadZipFile)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(tempfile.TemporaryFile(dir=folder))
        try:
            with urllib.request.urlopen(url, timeout=SECONDS) as answer:
                shutil.copyfileobj(answer, archive, 1 << 20)
            packed = stack.enter_context(zipfile.ZipFile(archive))
            with atomic_dir(target) as place:
                packed.extractall(place)
        except failed as error:
            raise UserError(
                f"{url}: download failed ({type(error).__name__}); fetch and unpack it "
                "where there is a network, and give its folder as --data_dir"
            ) from error
    return target
