"""Where the book's datasets lie on this machine, and how the missing ones are brought.

Nothing that arrives is used before its hashes are checked, and a folder appears in the cache
whole or not at all.
"""

import gzip
import hashlib
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import numpy as np
import pooch
import torch
from torch import Tensor
from torchvision.datasets import FashionMNIST, OxfordIIITPet
from torchvision.datasets.utils import check_integrity

from tlbook.download import FetchError, fetch
from tlbook.folders import DataError
from tlbook.runtime import cache_dir

ASSETS = Path(__file__).parent / "assets"
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
HYMENOPTERA_URL = "https://download.pytorch.org/tutorial/hymenoptera_data.zip"
HYMENOPTERA_MANIFEST = ASSETS / "hymenoptera.sha256"
FASHION_FOLDER = "FashionMNIST/raw"  # as torchvision names it
_PREFIX = {"train": "train", "test": "t10k"}


class Found(NamedTuple):
    """A dataset on this machine.

    Attributes:
        path: the file or folder.
        source: where it came from, in words.
    """

    path: Path
    source: str


def find_photographs(name: str, splits: tuple[str, ...], published: str) -> Found | None:
    """Look for a folder with these splits in `TLBOOK_DATA` if that is set, then in the cache.

    Args:
        name: the folder's name.
        splits: names of its sub-folders; without them it does not count.
        published: what the copy in the cache is, in words.

    Example:
        >>> find_photographs("no_such_dataset", ("train", "val"), "nothing") is None
        True
    """
    for place in _places(name, published):
        if all((place.path / split).is_dir() for split in splits):
            return place
    return None


def find_fashion_full() -> Found | None:
    """Look for the four files of Fashion-MNIST: in `TLBOOK_DATA`, of Debian, then in the cache."""
    *own, cached = _places(FASHION_FOLDER, "Fashion-MNIST")
    debian = Found(DEBIAN_FASHION, "Debian package dataset-fashion-mnist")
    for place in (*own, debian, cached):
        if all((place.path / filename).is_file() for filename, _ in FashionMNIST.resources):
            return place
    return None


def read_fashion(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Read one split of Fashion-MNIST from its published, gzipped files.

    Args:
        folder: the folder they lie in.
        split: "train" or "test".

    Returns:
        Images (N, 28, 28) as uint8 and labels (N,) as int64.

    Raises:
        DataError: if a file is damaged.
    """
    images = _read_idx(folder / f"{_PREFIX[split]}-images-idx3-ubyte.gz", 16)
    labels = _read_idx(folder / f"{_PREFIX[split]}-labels-idx1-ubyte.gz", 8)
    if len(images) != len(labels) * 28 * 28:
        raise DataError(f"{folder}: {len(images)} pixels do not fit {len(labels)} labels")
    return images.reshape(-1, 28, 28), labels.long()


def fetch_fashion_full() -> None:
    """Download the four files of Fashion-MNIST with torchvision's list of addresses and MD5s."""
    for filename, md5 in FashionMNIST.resources:
        _fetch_md5(FashionMNIST.mirrors[0] + filename, md5, cache_dir() / FASHION_FOLDER)


def fetch_hymenoptera() -> None:
    """Download the ants and bees, and check every photograph against the bundled manifest."""
    archive = fetch(HYMENOPTERA_URL)
    with _new_folder(cache_dir() / "hymenoptera_data") as folder:
        try:
            unpack_checked(archive, HYMENOPTERA_MANIFEST, folder.parent)
        except DataError as error:
            archive.unlink()
            raise DataError(
                f"{HYMENOPTERA_URL}: {error}. The archive was removed; fetch it again, or unpack "
                "it by hand and set TLBOOK_DATA to the folder that holds hymenoptera_data"
            ) from error
    archive.unlink()


def fetch_cats_and_dogs() -> None:
    """Download Oxford-IIIT Pet, checked by torchvision's MD5s, and sort it into cats and dogs.

    Its part "trainval" becomes train, its part "test" becomes val.
    """
    downloads = cache_dir() / "oxford-iiit-pet"
    # torchvision has the addresses and MD5s in this attribute only.
    archives = [_fetch_md5(url, md5, downloads) for url, md5 in OxfordIIITPet._RESOURCES]
    with _new_folder(cache_dir() / "cats_and_dogs") as folder:
        for archive in archives:
            with tarfile.open(archive) as tar:
                tar.extractall(folder.parent, filter="data")
        for part, listing in (("train", "trainval"), ("val", "test")):
            for line in (folder.parent / f"annotations/{listing}.txt").read_text().splitlines():
                name, _, species, _ = line.split()
                target = folder / part / {"1": "cat", "2": "dog"}[species]
                target.mkdir(parents=True, exist_ok=True)
                (folder.parent / f"images/{name}.jpg").rename(target / f"{name}.jpg")
    shutil.rmtree(downloads)


def unpack_checked(archive: Path, manifest: Path, folder: Path) -> None:
    """Unpack the files that a manifest lists from a zip archive, each with its right hash.

    Args:
        archive: the zip file.
        manifest: lines of SHA-256, two spaces and path, as `sha256sum` writes them.
        folder: where to put the files; other files of the archive are left out.

    Raises:
        DataError: if an entry would leave the folder (nothing is written then), or a file is
            missing or has another hash.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            leaving = [info.filename for info in opened.infolist() if _leaves_folder(info)]
            if leaving:
                raise DataError(f"its entries {leaving} would leave the folder")
            _unpack_listed(opened, manifest.read_text().splitlines(), folder)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"the archive is damaged ({error})") from error


def _unpack_listed(archive: zipfile.ZipFile, lines: list[str], folder: Path) -> None:
    wrong = []
    names = set(archive.namelist())
    for expected, _, name in (line.partition("  ") for line in lines):
        content = archive.read(name) if name in names else b""
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            wrong.append(f"{name} (SHA-256 expected {expected}, found {found})")
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    if wrong:
        raise DataError(f"{len(wrong)} of {len(lines)} files are missing or altered, as {wrong[0]}")


def _leaves_folder(entry: zipfile.ZipInfo) -> bool:
    # Windows' rules know both slashes, drives and roots, so that they refuse what POSIX's do.
    path = PureWindowsPath(entry.filename)
    is_link = stat.S_ISLNK(entry.external_attr >> 16)
    return bool(is_link or path.drive or path.root or ".." in path.parts)


@contextmanager
def _new_folder(final: Path) -> Iterator[Path]:
    """Yield the path of a folder to fill, in an empty one; it moves to its place at the end."""
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=f"{final.name}.part") as empty:
        folder = Path(empty, final.name)
        yield folder
        shutil.rmtree(final, ignore_errors=True)
        folder.rename(final)


def _fetch_md5(url: str, md5: str, folder: Path) -> Path:
    path = fetch(url, folder=folder)
    if not check_integrity(path, md5):
        found = pooch.file_hash(str(path), alg="md5")
        path.unlink()
        raise FetchError(
            f"{url} was refused and removed: MD5 expected {md5}, found {found}. "
            f"Or download it in a browser and put it at {path}"
        )
    return path


def _places(name: str, published: str) -> list[Found]:
    """Return where a folder may lie, the user's own place first."""
    own = os.environ.get("TLBOOK_DATA")
    places = [Found(cache_dir() / name, f"{published}, downloaded")]
    if own:
        places.insert(0, Found(Path(own).expanduser() / name, f"the folder {name} in TLBOOK_DATA"))
    return places


def _read_idx(path: Path, header: int) -> Tensor:
    """Return the bytes after the header of a gzipped IDX file."""
    try:
        content = gzip.decompress(path.read_bytes())
        return torch.from_numpy(np.frombuffer(bytearray(content), np.uint8, offset=header))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}): install or download it again") from error
