"""Do cheap measures of a dataset say which network wins on it?

240 images of each of the book's four datasets, drawn three times, as many of each class. Fashion-
MNIST has ten classes and the others two; "shirts", its T-shirts and shirts alone, takes that
difference away. Measured without training: intrinsic dimension, accuracy of the nearest neighbour,
lossless compression. Beside them three candidates are cross-validated on the same images, with one
recipe for all that was tuned for none. Cells of one stretch of files, and copies of one image, stay
in one fold and are nobody's neighbour. Only numbers go to the result file.

    python -m benchmarks.proxies [--tasks shirts ...] [--draws N] [--quick] [--write]

Needs both sets of photographs (TLBOOK_DATA). What the result file holds already is not run again.
"""

import argparse
import functools
import io
import math
import time
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from scipy.spatial.distance import cdist
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import ConcatDataset, Dataset, TensorDataset

from benchmarks.results import stored_result, write_result
from tlbook import (
    SelectionReport,
    cross_validate,
    extract_features,
    get_head,
    load_dataset,
    load_pretrained,
)
from tlbook.data import targets_of
from tlbook.leaks import joined

IMAGES, TRAIN, FOLDS, EPOCHS = 240, 176, 5, 40
SIDES = (28, 64)  # Fashion-MNIST's own, and one that shows what is on a photograph
PIXELS, FEATURES = (3, 64, 64), (1280,)
SHIRTS = (0, 6)
STRETCH = 64  # cells of one module are neighbours in the list of files
TASKS = ("fashion_mnist", "shirts", "solar_cells", "hymenoptera", "cats_and_dogs")


class Pool(NamedTuple):
    """What is drawn from: items of a dataset, their labels, and which items are relatives."""

    dataset: Dataset
    items: np.ndarray
    labels: np.ndarray
    relatives: np.ndarray


class Views:
    """An image as the proxies see it, grey and small, and as the networks do."""

    def __init__(self, preprocessing: Callable[[Image.Image], Tensor]) -> None:
        self.preprocessing = preprocessing

    def __call__(self, image: Image.Image) -> dict[str, np.ndarray | Tensor]:
        """Return the views: grey ones by their side, "pixels" and "network"."""
        grey = {str(side): shrunk(image.convert("L"), side) for side in SIDES}
        pixels = torch.from_numpy(shrunk(image.convert("RGB"), PIXELS[1])).permute(2, 0, 1)
        return {**grey, "pixels": pixels, "network": self.preprocessing(image)}


class Part(nn.Module):
    """Pass on one part of a row `(N, pixels and features)`, in its shape."""

    def __init__(self, start: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.start, self.shape = start, shape

    def forward(self, rows: Tensor) -> Tensor:
        """Map rows to `(N, *shape)`."""
        return rows[:, self.start : self.start + math.prod(self.shape)].unflatten(1, self.shape)


def shrunk(image: Image.Image, side: int) -> np.ndarray:
    """Return the middle square of an image at another size, uint8."""
    return np.array(ImageOps.fit(image, (side, side), method=Image.Resampling.BICUBIC))


def linear_on_pixels(classes: int) -> nn.Module:
    inputs = PIXELS[0] * (PIXELS[1] // 4) ** 2
    norm = nn.LayerNorm(inputs, elementwise_affine=False)
    layers = [Part(0, PIXELS), nn.AvgPool2d(4), nn.Flatten(), norm, nn.Linear(inputs, classes)]
    return nn.Sequential(*layers)


def small_cnn(classes: int) -> nn.Module:
    layers: list[nn.Module] = [Part(0, PIXELS)]
    for inputs, outputs in ((3, 8), (8, 16), (16, 32), (32, 64)):
        conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def linear_on_features(classes: int) -> nn.Module:
    norm = nn.LayerNorm(FEATURES, elementwise_affine=False)
    return nn.Sequential(Part(math.prod(PIXELS), FEATURES), norm, nn.Linear(*FEATURES, classes))


CANDIDATES = {
    "linear, pixels": linear_on_pixels,
    "small CNN, pixels": small_cnn,
    "linear, frozen features": linear_on_features,
}


@functools.cache
def backbone() -> tuple[nn.Module, Callable]:
    """Return EfficientNet-Lite0 without its head, and its preprocessing."""
    model, transform, _ = load_pretrained("efficientnet_lite0")
    model.set_submodule(get_head(model).path, nn.Identity())
    return model, transform


@functools.cache
def pool_of(task: str) -> Pool:
    """Return what the images of a task are drawn from; splits that were published are joined."""
    name = "fashion_mnist" if task == "shirts" else task
    splits = {"fashion_mnist": ["train"], "solar_cells": ["all"]}.get(name, ["train", "val"])
    parts = [load_dataset(name, split, transform=Views(backbone()[1])) for split in splits]
    labels = torch.cat([targets_of(part) for part in parts]).numpy()
    items = np.arange(len(labels))
    if task == "shirts":
        items = items[np.isin(labels, SHIRTS)]
        labels = np.searchsorted(SHIRTS, labels)
    relatives = items // STRETCH if task == "solar_cells" else np.arange(len(items))
    return Pool(ConcatDataset(parts), items, labels[items], relatives)


def drawn(pool: Pool, images: int, seed: int) -> np.ndarray:
    """Return places in a pool, as many of each class, in random order."""
    random = np.random.default_rng(seed)
    classes = np.unique(pool.labels)
    chosen = [
        random.choice(np.flatnonzero(pool.labels == label), images // len(classes), replace=False)
        for label in classes
    ]
    return random.permutation(np.concatenate(chosen))


def dimension(points: np.ndarray, neighbours: int) -> float:
    """Return the intrinsic dimension that the distances to the nearest neighbours suggest.

    The maximum likelihood estimate of Levina and Bickel, with the mean of MacKay and Ghahramani;
    two neighbours make it that of Facco and others.
    """
    points = np.unique(points, axis=0)  # a copy has distance zero
    nearest = np.sort(cdist(points, points), axis=1)[:, 1 : neighbours + 1]
    return float(1 / np.log(nearest[:, -1:] / nearest[:, :-1]).mean())


def nearest_neighbour(points: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """Return the share of points whose nearest neighbour outside their group is of their class."""
    between = np.where(groups[:, None] == groups, np.inf, cdist(points, points))
    return float(np.mean(labels[between.argmin(axis=1)] == labels))


def compressed(images: np.ndarray) -> dict[str, float]:
    """Return the bytes that are left of a byte, for grey images `(N, S, S)`, uint8."""
    packed = sum(len(zlib.compress(image.tobytes(), 9)) for image in images)
    written = 0
    for image in images:
        Image.fromarray(image).save(file := io.BytesIO(), "png", optimize=True)
        written += len(file.getvalue())
    return {"zlib": packed / images.size, "png": written / images.size}


def proxies(
    grey: dict[int, np.ndarray], features: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> dict[str, float]:
    """Measure a dataset without training anything."""
    found = {}
    points = {f"pixels {side}": images.reshape(len(images), -1) for side, images in grey.items()}
    for place, rows in (points | {"features": features}).items():
        rows = rows.astype(np.float64)
        for neighbours in (2, 10):
            found[f"dimension, {place}, {neighbours} neighbours"] = dimension(rows, neighbours)
        found[f"nearest neighbour, {place}"] = nearest_neighbour(rows, labels, groups)
    for side, images in grey.items():
        found |= {f"{kind}, pixels {side}": share for kind, share in compressed(images).items()}
    return {name: round(value, 4) for name, value in found.items()}


def one_draw(task: str, seed: int, quick: bool) -> dict[str, Any]:
    """Draw images, measure the proxies, and cross-validate the candidates."""
    pool, times = pool_of(task), [time.perf_counter()]
    places = drawn(pool, 60 if quick else IMAGES, seed)
    labels = pool.labels[places]
    views = [pool.dataset[item][0] for item in pool.items[places].tolist()]
    grey = {side: np.stack([view[str(side)] for view in views]) for side in SIDES}
    pixels, inputs = (torch.stack([view[key] for view in views]) for key in ("pixels", "network"))
    times.append(time.perf_counter())
    targets = torch.from_numpy(labels).long()
    rows = extract_features(backbone()[0], TensorDataset(inputs, targets), progress=False)
    features = rows.tensors[0].flatten(1).float()
    times.append(time.perf_counter())
    copies = np.unique(grey[SIDES[1]].reshape(len(grey[SIDES[1]]), -1), axis=0, return_inverse=True)
    groups = joined(pool.relatives[places], copies[1].ravel())
    found = proxies(grey, features.numpy(), labels, groups)
    times.append(time.perf_counter())
    both = torch.cat([pixels.flatten(1).float() / 255, features], dim=1)
    report = compared(TensorDataset(both, targets), groups, seed, quick)
    times.append(time.perf_counter())
    parts = ("reading", "features", "proxies", "cross-validation")
    return {
        "draw": seed,
        "groups": len(np.unique(groups)),
        "copies": len(places) - len(copies[0]),
        "proxies": found,
        **summarised(report),
        "seconds": dict(zip(parts, np.diff(times).round(2).tolist(), strict=True)),
    }


def compared(data: TensorDataset, groups: np.ndarray, seed: int, quick: bool) -> SelectionReport:
    """Cross-validate the candidates on the same folds."""
    classes, epochs = int(data.tensors[1].max()) + 1, 2 if quick else EPOCHS
    return cross_validate(
        {name: functools.partial(build, classes) for name, build in CANDIDATES.items()},
        data,
        folds=2 if quick else FOLDS,
        epochs=epochs,
        batch_size=16,
        seed=seed,
        groups=groups,
        duplicates="together",
        train_size=20 if quick else TRAIN,  # whole batches: BatchNorm cannot train on one image
        optimizer=functools.partial(torch.optim.AdamW, lr=1e-3),
        scheduler=functools.partial(CosineAnnealingLR, T_max=epochs),
        precision="float32",
        n_jobs=2,
        progress=False,
    )


def summarised(report: SelectionReport) -> dict[str, Any]:
    """Return the scores of every fold, and all differences with their corrected intervals."""
    names, rows = list(CANDIDATES), report.rows()
    kept = ("accuracy", "train_accuracy", "parameters", "mult_adds", "seconds", "failed")
    tests = [report.compare(a, b) for i, b in enumerate(names) for a in names[i + 1 :]]
    return {
        "candidates": {
            row["candidate"]: {key: round(row[key], 4) for key in kept}
            | {"scores": [round(score, 4) for score in report.scores(row["candidate"])]}
            for row in rows
        },
        "differences": {
            f"{test.first} minus {test.second}": {
                key: round(getattr(test, key), 4)
                for key in ("difference", "low", "high", "p_value")
            }
            for test in tests
        },
    }


def main() -> None:
    """Measure every task and draw, and print or store each result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="*", default=TASKS, choices=TASKS)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few images, to try it out")
    parser.add_argument("--write", action="store_true", help="store the result file")
    options = parser.parse_args()
    measured = stored_result("proxies") if options.write and not options.quick else {}
    for seed in range(options.draws):
        for task in options.tasks:
            pool = pool_of(task)
            about = {"classes": len(np.unique(pool.labels)), "drawn from": len(pool.items)}
            found = measured.setdefault(task, about | {"images": IMAGES, "draws": []})
            if seed in [draw["draw"] for draw in found["draws"]]:
                continue
            found["draws"].append(one_draw(task, seed, options.quick))
            print(task, found["draws"][-1], flush=True)
            if options.write and not options.quick:
                write_result("proxies", measured)


if __name__ == "__main__":
    main()
