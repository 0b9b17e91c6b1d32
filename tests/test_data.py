"""The book's datasets by name: what they hold, where they come from, how they fail."""

import hashlib
import importlib.util
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset
from torchvision.datasets import FashionMNIST
from torchvision.transforms import v2

from tlbook import data, sources
from tlbook.data import (
    DATASETS,
    DataError,
    class_counts,
    dataset_status,
    fetch_dataset,
    few_shot_subset,
    load_dataset,
    stratified_split,
)
from tlbook.training import fit
from tools.make_fashion_mnist import bundle_arrays, select, write_npz
from tools.make_hymenoptera_manifest import manifest

REAL_DATA = os.environ.get("TLBOOK_DATA")

needs_debian = pytest.mark.skipif(
    not sources.DEBIAN_FASHION.is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
needs_photographs = pytest.mark.skipif(
    not REAL_DATA, reason="TLBOOK_DATA names no folder of photographs"
)


@pytest.fixture
def own_data(tmp_path, monkeypatch):
    """An empty folder in TLBOOK_DATA, and an empty cache."""
    monkeypatch.setenv("TLBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TLBOOK_DATA", str(tmp_path / "own"))
    return tmp_path / "own"


def plant(folder: Path, classes: tuple[str, ...]) -> None:
    """Put two photographs into each class of both splits."""
    for split in ("train", "val"):
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (6, 4), (i, 0, 0)).save(folder / split / name / f"{i}.jpg")


# --- the bundled Fashion-MNIST -----------------------------------------------------------------


@pytest.mark.parametrize(("split", "count"), [("train", 12_000), ("test", 2_000)])
def test_the_bundle_holds_equal_classes(split, count):
    dataset = load_dataset("fashion_mnist", split)
    images, targets = dataset.tensors
    assert isinstance(dataset, TensorDataset)
    assert images.shape == (count, 1, 28, 28) and images.dtype == torch.float32
    assert images.min() == 0 and images.max() == 1
    assert targets.dtype == torch.int64 and dataset.targets is targets
    assert class_counts(dataset) == dict.fromkeys(FashionMNIST.classes, count // 10)
    image, label = dataset[7]
    assert torch.equal(image, images[7]) and type(label) is int and label == targets[7]
    assert dataset.class_to_idx[dataset.classes[label]] == label
    assert dataset.source.startswith("bundled with tlbook")


def test_a_transform_gets_the_grey_image():
    plain = load_dataset("fashion_mnist", "test")
    seen = load_dataset("fashion_mnist", "test", transform=lambda image: image)
    image, label = seen[5]
    assert image.mode == "L" and image.size == (28, 28) and type(label) is int
    assert torch.equal(v2.functional.to_image(image), (plain[5][0] * 255).round().byte())
    assert torch.equal(seen.targets, plain.targets) and seen.classes == plain.classes
    to_three = v2.Compose([v2.Grayscale(3), v2.Resize(32), v2.ToImage()])
    tensors = load_dataset("fashion_mnist", "test", transform=to_three)
    assert len(tensors) == 2000 and tensors[0][0].shape == (3, 32, 32)


def test_parts_of_it_train_from_memory():
    train, val = stratified_split(load_dataset("fashion_mnist", "test"), (200, 100), seed=0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    history = fit(model, train, val, epochs=1, progress=False, device="cpu")
    assert history.epochs[-1].val_loss < 2.3


def test_datasets_can_be_sent_to_workers():
    part = few_shot_subset(load_dataset("fashion_mnist", "test"), 2, seed=0)
    again = pickle.loads(pickle.dumps(part))
    assert torch.equal(again[3][0], part[3][0]) and again.classes == part.classes


def test_a_damaged_bundle_is_refused(tmp_path, monkeypatch):
    content = bytearray(data.FASHION_BUNDLE.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "fashion_mnist.npz").write_bytes(content)
    monkeypatch.setattr(data, "FASHION_BUNDLE", tmp_path / "fashion_mnist.npz")
    assert not dataset_status("fashion_mnist").present
    with pytest.raises(DataError) as caught:
        load_dataset("fashion_mnist")
    found = hashlib.sha256(content).hexdigest()
    for part in (str(tmp_path), found, data.FASHION_SHA256, "Install tlbook again"):
        assert part in str(caught.value)
    (tmp_path / "fashion_mnist.npz").unlink()
    with pytest.raises(DataError, match="found no file"):
        fetch_dataset("fashion_mnist")


def test_the_bundle_is_every_fifth_of_each_class():
    targets = np.array([1, 0] * 12 + [2])
    assert select(targets).tolist() == [0, 1, 10, 11, 20, 21, 24]


@needs_debian
def test_the_tool_makes_the_bundle_again(tmp_path):
    write_npz(tmp_path / "again.npz", bundle_arrays(sources.DEBIAN_FASHION))
    digest = hashlib.sha256((tmp_path / "again.npz").read_bytes()).hexdigest()
    assert digest == data.FASHION_SHA256


@needs_debian
def test_the_full_set_holds_the_bundle():
    full, part = (load_dataset(name, "test") for name in ("fashion_mnist_full", "fashion_mnist"))
    assert len(full) == 10_000 and full.source == "Debian package dataset-fashion-mnist"
    chosen = torch.from_numpy(select(full.targets.numpy()))
    assert torch.equal(full.tensors[0][chosen], part.tensors[0])
    assert torch.equal(full.targets[chosen], part.targets)
    assert len(load_dataset("fashion_mnist_full", "train", transform=v2.ToImage())) == 60_000


def test_assets_are_listed_with_their_hashes():
    rows = (sources.ASSETS / "README.md").read_text().splitlines()
    for name in ("fashion_mnist.npz", "hymenoptera.sha256", "resnet18_fashion.safetensors"):
        digest = hashlib.sha256((sources.ASSETS / name).read_bytes()).hexdigest()
        assert any(name in row and digest in row for row in rows if row.startswith("|")), name


# --- solar cells -------------------------------------------------------------------------------


def test_solar_cells():
    cells = load_dataset("solar_cells", "all")
    assert class_counts(cells) == {"sound": 1803, "defective": 821}
    image, label = cells[0]
    assert image.shape == (1, 300, 300) and image.dtype == torch.float32 and 0.3 < image.max() <= 1
    assert type(label) is int and label == 1
    assert sorted(set(cells.cell_types)) == ["mono", "poly"] and len(cells.cell_types) == 2624
    levels, counts = cells.probabilities.unique(return_counts=True)
    assert (levels * 3).round().tolist() == [0, 1, 2, 3] and counts.tolist() == [
        1508,
        295,
        106,
        715,
    ]
    assert torch.equal(cells.targets, (cells.probabilities >= 0.5).long())
    assert cells.source.startswith("PyPI package elpv-dataset 1.")
    photograph = load_dataset("solar_cells", "all", transform=lambda image: image)[0][0]
    assert photograph.mode == "L" and photograph.size == (300, 300)


def test_solar_cells_are_those_of_the_package(tmp_path):
    from elpv_dataset.utils import load_dataset as packages_own

    cells = load_dataset("solar_cells", "all")
    labels = Path(cells.root, "labels.csv").read_text().splitlines(keepends=True)
    (tmp_path / "labels.csv").write_text("".join(labels[:5]))
    (tmp_path / "images").symlink_to(Path(cells.root, "images"))
    images, probabilities, kinds = packages_own(str(tmp_path / "labels.csv"))
    for i in range(5):
        assert np.array_equal((cells[i][0][0] * 255).round().byte().numpy(), images[i])
    assert np.allclose(cells.probabilities[:5], probabilities)
    assert cells.cell_types[:5] == kinds.tolist()


@pytest.mark.parametrize("split", ["train", "test"])
def test_solar_cells_have_no_parts(split):
    with pytest.raises(DataError, match=r"load 'all' and divide it with stratified_split"):
        load_dataset("solar_cells", split)


def test_solar_cells_without_their_package(monkeypatch):
    find = importlib.util.find_spec
    hidden = lambda name: None if name == "elpv_dataset" else find(name)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    status = dataset_status("solar_cells")
    assert (status.present, status.how_to_get) == (False, "pip install elpv-dataset")
    with pytest.raises(DataError, match="pip install elpv-dataset"):
        load_dataset("solar_cells", "all")


# --- photographs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "folder", "classes"),
    [
        ("hymenoptera", "hymenoptera_data", ("ants", "bees")),
        ("cats_and_dogs", "cats_and_dogs", ("cat", "dog")),
    ],
)
def test_photographs_come_from_the_own_folder(own_data, name, folder, classes):
    plant(own_data / folder, classes)
    for split in ("train", "val"):
        dataset = load_dataset(name, split)
        assert dataset.classes == list(classes) and dataset.targets.tolist() == [0, 0, 1, 1]
        assert dataset.source == f"the folder {folder} in TLBOOK_DATA"
        assert dataset[0][0].shape == (3, 4, 6)
    assert load_dataset(name, transform=lambda image: image)[0][0].mode == "RGB"
    assert dataset_status(name).source == dataset.source


def test_the_placeholder_among_the_ants_is_left_out_silently(own_data):
    plant(own_data / "hymenoptera_data", ("ants", "bees"))
    ants = own_data / "hymenoptera_data" / "train" / "ants"
    Image.new("P", (4, 4)).save(ants / "imageNotFound.gif")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_dataset("hymenoptera")) == 4


def test_an_own_folder_with_other_classes_is_refused(own_data):
    plant(own_data / "hymenoptera_data", ("ants", "bees", "wasps"))
    with pytest.raises(
        DataError, match=r"\['ants', 'bees', 'wasps'\], expected \['ants', 'bees'\]"
    ):
        load_dataset("hymenoptera")


@needs_photographs
def test_the_real_photographs(monkeypatch):
    monkeypatch.setenv("TLBOOK_DATA", REAL_DATA)
    counts = {
        (name, split): list(class_counts(load_dataset(name, split)).values())
        for name in ("hymenoptera", "cats_and_dogs")
        for split in ("train", "val")
    }
    assert counts[("hymenoptera", "train")] == [123, 121]
    assert counts[("hymenoptera", "val")] == [70, 83]
    assert counts[("cats_and_dogs", "train")] == [300, 300]
    assert counts[("cats_and_dogs", "val")] == [150, 150]


@needs_photographs
def test_the_manifest_lists_the_real_photographs():
    made = manifest(Path(REAL_DATA, "hymenoptera_data"))
    assert made == sources.HYMENOPTERA_MANIFEST.read_text()
    assert len(made.splitlines()) == 244 + 153 + 1


# --- names and status --------------------------------------------------------------------------


def test_unknown_names_and_splits_are_refused():
    with pytest.raises(DataError, match="close names: fashion_mnist"):
        load_dataset("fashon_mnist")
    with pytest.raises(DataError, match=f"close names: {', '.join(DATASETS)}"):
        dataset_status("zzz")
    with pytest.raises(DataError, match="has no split 'val': load 'train' or 'test'"):
        load_dataset("fashion_mnist", "val")
    with pytest.raises(DataError, match="has no split 'test': load 'train' or 'val'"):
        load_dataset("hymenoptera", "test")


def test_every_dataset_has_a_status(own_data):
    assert DATASETS == (
        "fashion_mnist",
        "fashion_mnist_full",
        "solar_cells",
        "hymenoptera",
        "cats_and_dogs",
    )
    statuses = {name: dataset_status(name) for name in DATASETS}
    assert all(status.name == name for name, status in statuses.items())
    assert statuses["fashion_mnist"].present and statuses["solar_cells"].present
    for name in ("hymenoptera", "cats_and_dogs"):
        assert not statuses[name].present
        assert statuses[name].how_to_get == f"python -m tlbook fetch {name}"
    assert fetch_dataset("fashion_mnist") == statuses["fashion_mnist"]
