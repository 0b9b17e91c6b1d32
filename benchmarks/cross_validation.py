"""Which network a short cross-validation would choose, and what leaks add to a score.

`networks`: 4,000 of the 60,000 training images of Fashion-MNIST, 400 of each class, are divided
into 5 folds, twice. HybridNet (images padded to 32 pixels), SlimVGG, ResNet-18 (grey stem, 28
pixels) and a linear layer start from scratch in each fold and get 3 epochs of AdamW at 0.001 in
batches of 100, no augmentation. Images are normalised with mean and standard deviation of the
other 56,000. Two folds run side by side, with one thread each: that is how the seconds of a fold
are measured. Finished folds are kept in a store, so that a killed run goes on.

`leaks`: a score with a leak beside the score without it, and beside the truth: the accuracy of the
same network on images that had no part in it. Every seed draws its images from the 56,000.

    python -m benchmarks.cross_validation [networks leaks] [--seeds 0 1 2 3 4] [--write]
        [--images 4000] [--folds 5] [--repeats 2] [--epochs 3] [--workers 2] [--store FOLDER]

The test images are not read here. Seeds that are in the result file already do not run again.
Smaller settings are for trying, without --write: about 20 minutes on two quiet cores as it stands.
"""

import argparse
import itertools
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from benchmarks.fashion_mnist import grey_resnet
from benchmarks.results import stored_result, write_result
from tlbook import (
    HybridNet,
    SlimVGG,
    cross_validate,
    evaluate,
    fit,
    load_dataset,
    seed_everything,
    stratified_split,
)
from tlbook.runtime import cache_dir
from tlbook.selection import Candidate, Fold, SelectionReport

NAME = "cross_validation"
BATCH = 100  # divides a training fold of 3,200
LEAK_BATCH = 64
POOL = 1_000  # images of a seed before they are copied, and as many new ones
FEW = 250  # images in which a mean could still tell something
COPIED = {"10% copied": 0.1, "30% copied": 0.3, "all copied": 1.0}


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))


def padded_hybrid() -> nn.Module:
    return nn.Sequential(nn.ZeroPad2d(2), HybridNet())


def small_cnn() -> nn.Module:
    """Return a network that can learn a thousand images by heart in seconds."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


# The names are those of benchmarks.fashion_mnist.
NETWORKS = {
    "linear": linear,
    "slim_vgg": SlimVGG,
    "resnet18": grey_resnet,
    "hybrid": padded_hybrid,
}
LEARNERS = {"linear": linear, "small CNN": small_cnn}
Arms = dict[str, tuple[TensorDataset, TensorDataset]]


def divided(images: int) -> tuple[TensorDataset, TensorDataset]:
    """Return so many training images and all others, normalised by what the others are like."""
    whole = load_dataset("fashion_mnist_full", "train")
    parts = stratified_split(whole, [images, len(whole) - images], seed=0)
    (chosen, labels), (rest, rest_labels) = (
        (whole.tensors[0][part.indices], part.targets) for part in parts
    )
    mean, sd = rest.mean(), rest.std()
    return (
        TensorDataset((chosen - mean) / sd, labels),
        TensorDataset((rest - mean) / sd, rest_labels),
    )


def networks(options: argparse.Namespace) -> dict[str, Any]:
    """Cross-validate the networks; return every fold, the costs, the tests and the choice."""
    data, _ = divided(options.images)
    how = {"folds": options.folds, "repeats": options.repeats, "epochs": options.epochs}
    report = cross_validate(
        NETWORKS,
        data,
        batch_size=BATCH,
        seed=0,
        threads=1,
        n_jobs=options.workers,
        store=options.store,
        **how,
    )
    print(report, flush=True)
    side_by_side = {"workers": options.workers, "threads of a worker": 1}
    return {
        "protocol": {"images": options.images, "batch": BATCH, "seed": 0, **how, **side_by_side},
        "candidates": {c.name: costs(report, c) for c in report.candidates},
        "folds": [shortened(fold) for fold in report.folds],
        "paired tests": paired_tests(report),
        "highest": report.best("highest"),
        "one standard error": {cost: report.best(cost=cost) for cost in ("parameters", "seconds")},
    }


def costs(report: SelectionReport, candidate: Candidate) -> dict[str, Any]:
    """Return what a candidate costs; a fold's seconds hold for so many workers on this machine."""
    seconds = [fold.seconds for fold in report.folds if fold.candidate == candidate.name]
    return {
        "parameters": candidate.parameters,
        "mult-adds": candidate.mult_adds,
        "seconds of a fold, median": round(median(seconds), 2),
    }


def shortened(fold: Fold) -> dict[str, Any]:
    """Return a fold as a dictionary of short numbers, from which `Fold(**row)` makes it again."""
    return rounded(asdict(fold) | {"rows": [rounded(row) for row in fold.rows]}, 4)


def paired_tests(report: SelectionReport) -> list[dict[str, Any]]:
    pairs = itertools.combinations(NETWORKS, 2)
    return [rounded(asdict(report.compare(*pair)), 6) for pair in pairs]


def rounded(row: dict[str, Any], digits: int = 4) -> dict[str, Any]:
    return {k: round(v, digits) if isinstance(v, float) else v for k, v in row.items()}


def drawn(rest: TensorDataset, size: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Return two draws of images and labels, nothing in both, with equal shares of each class."""
    parts = stratified_split(rest, [size, POOL], seed=seed)
    return [(rest.tensors[0][part.indices], part.targets) for part in parts]


def shaken(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by up to two pixels, and mirror it with probability one half."""
    padded = F.pad(images, [2] * 4, value=images.min().item())
    steps = torch.randint(5, (len(images), 2), generator=generator).tolist()
    moved = torch.stack(
        [image[:, y : y + 28, x : x + 28] for image, (y, x) in zip(padded, steps, strict=True)]
    )
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(mirrored, moved.flip(3), moved)


def versions(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images, and after them four shaken versions of all."""
    return torch.cat([images, *(shaken(images, generator) for _ in range(4))])


def two_divisions(images: Tensor, labels: Tensor, origin: np.ndarray, seed: int) -> Arms:
    """Divide items 4:1, once at random and once so that those of one origin stay together."""
    how, classes = {"n_splits": 5, "shuffle": True, "random_state": seed}, labels.numpy()
    divisions = {
        "leak": StratifiedKFold(**how).split(origin, classes),
        "no leak": StratifiedGroupKFold(**how).split(origin, classes, origin),
    }
    return {
        name: tuple(TensorDataset(images[rows], labels[rows]) for rows in next(folds))
        for name, folds in divisions.items()
    }


def augmented_before(rest: TensorDataset, seed: int) -> tuple[Arms, list[TensorDataset]]:
    """Augment, then divide; the new images are shaken too, so that they are no easier."""
    generator = torch.Generator().manual_seed(seed)
    (images, labels), (fresh, fresh_labels) = drawn(rest, POOL, seed)
    copies = versions(images, generator), labels.repeat(5), np.tile(np.arange(POOL), 5)
    new = TensorDataset(versions(fresh, generator), fresh_labels.repeat(5))
    return two_divisions(*copies, seed), [new, new]


def copied(rest: TensorDataset, seed: int, share: float) -> tuple[Arms, list[TensorDataset]]:
    """Copy a share of the images, then divide."""
    (images, labels), fresh = drawn(rest, POOL, seed)
    rows = torch.randperm(POOL, generator=torch.Generator().manual_seed(seed))
    rows = torch.cat([torch.arange(POOL), rows[: round(share * POOL)]])
    new = TensorDataset(*fresh)
    return two_divisions(images[rows], labels[rows], rows.numpy(), seed), [new, new]


def normalised_before(
    rest: TensorDataset, seed: int, over: tuple[int, ...]
) -> tuple[Arms, list[TensorDataset]]:
    """Fit a normalisation to all images, or to the training part; dividing is the same."""
    (images, labels), (fresh, fresh_labels) = drawn(rest, FEW, seed)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed).split(labels, labels.numpy())
    train, val = next(folds)
    arms, new = {}, []
    for name, seen in (("leak", images), ("no leak", images[train])):
        sd, mean = torch.std_mean(seen, over, keepdim=True)
        sd = torch.where(sd > 1e-4, sd, 1.0)  # a pixel that never changes is left as it is
        arms[name] = tuple(
            TensorDataset((images[rows] - mean) / sd, labels[rows]) for rows in (train, val)
        )
        new.append(TensorDataset((fresh - mean) / sd, fresh_labels))
    return arms, new


LEAKS: dict[str, tuple[Callable[..., tuple[Arms, list[TensorDataset]]], tuple, int]] = {
    "augmented before the split": (augmented_before, (), 8),
    **{f"duplicates, {name}": (copied, (share,), 25) for name, share in COPIED.items()},
    "normalised before, one mean": (normalised_before, ((0, 1, 2, 3),), 40),
    "normalised before, one mean a pixel": (normalised_before, ((0,),), 40),
}


def leak_run(rest: TensorDataset, name: str, seed: int) -> dict[str, Any]:
    """Measure one leak with one seed, for every learner, with and without it."""
    prepare, settings, epochs = LEAKS[name]
    arms, new = prepare(rest, seed, *settings)
    run: dict[str, Any] = {"seed": seed}
    for learner, make in LEARNERS.items():
        run[learner] = {}
        for (arm, (train, val)), fresh in zip(arms.items(), new, strict=True):
            seed_everything(seed)
            model = make()
            fit(model, train, epochs=epochs, batch_size=LEAK_BATCH, seed=seed, progress=False)
            reported, truth, seen = (
                round(evaluate(model, part, precision="auto").accuracy, 4)
                for part in (val, fresh, train)
            )
            run[learner][arm] = {"reported": reported, "new images": truth, "training": seen}
    return run


def leaks(options: argparse.Namespace) -> None:
    """Measure every leak with every seed that is missing; print, or store, each run at once."""
    _, rest = divided(options.images)
    for name, seed in itertools.product(LEAKS, options.seeds):
        runs = stored_result(NAME).get("leaks", {}).get(name, {}).get("runs", [])
        if seed in [run["seed"] for run in runs]:
            continue
        run = leak_run(rest, name, seed)
        print(name, run, flush=True)
        if options.write:
            stored = stored_result(NAME)  # another process may have added to it
            row = stored.setdefault("leaks", {}).setdefault(
                name, {"epochs": LEAKS[name][2], "runs": []}
            )
            row["runs"] = sorted([*row["runs"], run], key=lambda run: run["seed"])
            row["too high by"] = {learner: too_high(row["runs"], learner) for learner in LEARNERS}
            write_result(NAME, stored)


def too_high(runs: list[dict[str, Any]], learner: str) -> dict[str, dict[str, float]]:
    """Return by how much scores promise more than new images give: mean and sd over seeds."""
    found = {}
    for arm in ("leak", "no leak"):
        scores = [run[learner][arm] for run in runs]
        excess = [row["reported"] - row["new images"] for row in scores]
        sd = stdev(excess) if len(excess) > 1 else 0.0
        found[arm] = {"mean": round(fmean(excess), 4), "sd": round(sd, 4)}
    return found


def main() -> None:
    """Measure what is asked for and print, or store, it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["networks", "leaks"])
    parser.add_argument("--seeds", nargs="*", type=int, default=list(range(5)))
    for name, value in (
        ("images", 4_000), ("folds", 5), ("repeats", 2), ("epochs", 3), ("workers", 2),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--store", type=Path, default=cache_dir() / NAME)
    parser.add_argument("--write", action="store_true", help="store the result file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if "networks" in options.parts:
        found = networks(options)
        print({key: value for key, value in found.items() if key != "folds"}, flush=True)
        if options.write:
            write_result(NAME, stored_result(NAME) | {"networks": found})
    if "leaks" in options.parts:
        leaks(options)


if __name__ == "__main__":
    main()
