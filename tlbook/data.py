"""The book's datasets by name, wherever they lie, and the tools to divide them.

Each says where it came from; what is not on this machine is downloaded once, checked, or
refused with the one command that would help.
"""

import difflib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import FashionMNIST

from tlbook import sources
from tlbook.download import FetchError
from tlbook.folders import DataError, ImageFiles, Transform, image_folder, load_image
from tlbook.grey import GreyImages, SolarCells, TensorImages, find_solar_cells
from tlbook.grouping import grouped_split
from tlbook.sources import Found
from tlbook.splits import (
    LabelledSubset,
    class_counts,
    class_names,
    few_shot_subset,
    make_loaders,
    stratified_split,
    targets_of,
)

__all__ = [
    "DATASETS",
    "DataError",
    "DatasetStatus",
    "GreyImages",
    "ImageFiles",
    "LabelledSubset",
    "SolarCells",
    "TensorImages",
    "class_counts",
    "class_names",
    "dataset_status",
    "fetch_dataset",
    "few_shot_subset",
    "grouped_split",
    "image_folder",
    "load_dataset",
    "load_image",
    "make_loaders",
    "stratified_split",
    "targets_of",
]

FASHION_BUNDLE = sources.ASSETS / "fashion_mnist.npz"
FASHION_SHA256 = "dea3b9597d712115df1b35947daad279757455a5b1ab070f57b02a63cadc42d7"
_PHOTO_SPLITS = ("train", "val")
_PLACEHOLDER = "imageNotFound.gif"


@dataclass(frozen=True)
class DatasetStatus:
    """Whether a dataset is on this machine.

    Attributes:
        name: as `load_dataset` takes it.
        present: True if it can be loaded without a network connection.
        source: where it is, or where it would come from.
        how_to_get: the one command that brings it.
    """

    name: str
    present: bool
    source: str
    how_to_get: str


@dataclass(frozen=True)
class _Entry:
    """How one dataset is found, loaded and fetched."""

    splits: tuple[str, ...]
    find: Callable[[], Found | None]
    load: Callable[[Found, str, Transform | None], Dataset]  # the split, for a transform
    fetch: Callable[[], object]
    origin: str  # where it would come from
    how_to_get: str
    own_copy: str = ""  # what a folder in TLBOOK_DATA must hold


def load_dataset(name: str, split: str = "train", *, transform: Transform | None = None) -> Dataset:
    """Return one split of a dataset of the book, downloaded first if it is not there.

    Args:
        name: the dataset:
            "fashion_mnist", bundled, 12,000 train and 2,000 test images (1, 28, 28);
            "fashion_mnist_full", all 60,000 train and 10,000 test images;
            "solar_cells", one split "all" of 2,624 photographs (1, 300, 300), see `SolarCells`;
            "hymenoptera", 244 train and 153 val photographs of ants and bees; the published
            folders also hold a .gif that says "image could not be found", which is left out;
            "cats_and_dogs", train and val photographs, 3,680 and 3,669 if downloaded.
        split: one of the dataset's splits.
        transform: gets the PIL image, mode "L" (grey) or "RGB" (photographs). Without it the
            image is a float32 tensor (C, H, W) in [0, 1].

    Returns:
        A dataset of images and int labels with `classes`, `class_to_idx`, `targets` (int64
        tensor) and `source`; Fashion-MNIST without transform is a `TensorDataset` in memory.

    Raises:
        DataError: if there is no such dataset or split, or it can neither be found nor fetched.

    Example:
        >>> test = load_dataset("fashion_mnist", "test")
        >>> len(test), test[0][0].shape, test.classes[test[0][1]]
        (2000, torch.Size([1, 28, 28]), 'Ankle boot')
    """
    entry = _entry(name)
    if split not in entry.splits:
        known = " or ".join(map(repr, entry.splits))
        raise DataError(
            f"{name} has no split {split!r}: load {known} and divide it with stratified_split"
        )
    return entry.load(_found_or_fetched(name), split, transform)


def dataset_status(name: str) -> DatasetStatus:
    """Say whether a dataset is on this machine, without using the network.

    Args:
        name: one of `DATASETS`.

    Raises:
        DataError: if there is no dataset of that name.

    Example:
        >>> dataset_status("fashion_mnist").present
        True
    """
    entry = _entry(name)
    found = entry.find()
    source = found.source if found else entry.origin
    return DatasetStatus(name, found is not None, source, entry.how_to_get)


def fetch_dataset(name: str) -> DatasetStatus:
    """Bring a dataset to this machine if it is not there, and say where it is.

    Args:
        name: one of `DATASETS`.

    Raises:
        DataError: if there is no dataset of that name, or it cannot be had; the cache is as it
            was then.

    Example:
        >>> fetch_dataset("fashion_mnist").source
        'bundled with tlbook, every fifth image of each class of Fashion-MNIST'
    """
    _found_or_fetched(name)
    return dataset_status(name)


def _found_or_fetched(name: str) -> Found:
    entry = _entry(name)
    found = entry.find()
    if found is not None:
        return found
    try:
        entry.fetch()
    except FetchError as error:
        raise DataError(
            f"{name} is not on this machine: {error}. When you are online, run: "
            f"{entry.how_to_get}; or set TLBOOK_DATA to a folder that holds {entry.own_copy}"
        ) from error
    return entry.find()


def _entry(name: str) -> _Entry:
    if name not in _ENTRIES:
        close = difflib.get_close_matches(name, DATASETS) or DATASETS
        raise DataError(f"there is no dataset {name!r}; close names: {', '.join(close)}")
    return _ENTRIES[name]


def _find_bundle() -> Found | None:
    is_whole = FASHION_BUNDLE.is_file() and _bundle_hash() == FASHION_SHA256
    what = "bundled with tlbook, every fifth image of each class of Fashion-MNIST"
    return Found(FASHION_BUNDLE, what) if is_whole else None


def _bundle_hash() -> str:
    return hashlib.sha256(FASHION_BUNDLE.read_bytes()).hexdigest()


def _refuse_bundle() -> None:
    found = f"SHA-256 {_bundle_hash()}" if FASHION_BUNDLE.is_file() else "no file"
    raise DataError(
        f"{FASHION_BUNDLE}: found {found}, expected SHA-256 {FASHION_SHA256}. "
        "Install tlbook again, or in a clone run: git checkout tlbook/assets"
    )


def _load_bundle(found: Found, split: str, transform: Transform | None) -> Dataset:
    with np.load(found.path) as arrays:
        images, targets = (torch.from_numpy(arrays[f"{split}_{k}"]) for k in ("images", "targets"))
    return _fashion(images, targets.long(), found.source, transform)


def _load_fashion_full(found: Found, split: str, transform: Transform | None) -> Dataset:
    images, targets = sources.read_fashion(found.path, split)
    return _fashion(images, targets, found.source, transform)


def _fashion(images: Tensor, targets: Tensor, source: str, transform: Transform | None) -> Dataset:
    about = {"classes": FashionMNIST.classes, "source": source}
    if transform is None:
        return TensorImages(images, targets, **about)
    return GreyImages(images, targets, transform=transform, **about)


def _load_solar_cells(found: Found, split: str, transform: Transform | None) -> Dataset:
    return SolarCells(transform)


def _load_photographs(
    classes: tuple[str, ...], found: Found, split: str, transform: Transform | None
) -> Dataset:
    path = found.path / split
    dataset = image_folder(path, transform=transform, classes=classes, ignore=_PLACEHOLDER)
    dataset.source = found.source
    return dataset


def _photographs(
    name: str, folder: str, classes: tuple[str, str], fetch: Callable[[], None], published: str
) -> _Entry:
    return _Entry(
        _PHOTO_SPLITS,
        partial(sources.find_photographs, folder, _PHOTO_SPLITS, published),
        partial(_load_photographs, classes),
        fetch,
        published,
        f"python -m tlbook fetch {name}",
        f"{folder}/{{train,val}}/{{{','.join(classes)}}}",
    )


_ENTRIES = {
    "fashion_mnist": _Entry(
        ("train", "test"),
        _find_bundle,
        _load_bundle,
        _refuse_bundle,
        "bundled with tlbook, missing or damaged",
        "install tlbook again, or in a clone: git checkout tlbook/assets",
    ),
    "fashion_mnist_full": _Entry(
        ("train", "test"),
        sources.find_fashion_full,
        _load_fashion_full,
        sources.fetch_fashion_full,
        "Fashion-MNIST, 30 MB",
        "python -m tlbook fetch fashion_mnist_full",
        f"the four files in {sources.FASHION_FOLDER}",
    ),
    "solar_cells": _Entry(
        ("all",),
        find_solar_cells,
        _load_solar_cells,
        SolarCells,  # says what to install
        "PyPI package elpv-dataset, not installed",
        "pip install elpv-dataset",
    ),
    "hymenoptera": _photographs(
        "hymenoptera",
        "hymenoptera_data",
        ("ants", "bees"),
        sources.fetch_hymenoptera,
        "ants and bees of the PyTorch tutorial",
    ),
    "cats_and_dogs": _photographs(
        "cats_and_dogs",
        "cats_and_dogs",
        ("cat", "dog"),
        sources.fetch_cats_and_dogs,
        "Oxford-IIIT Pet, its trainval as train and test as val",
    ),
}
DATASETS = tuple(_ENTRIES)
