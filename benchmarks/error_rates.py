"""How often tests call noise a difference, measured with small networks trained from scratch.

Each run draws 300 images anew, mirrors each by a coin, and cross-validates four networks with one
hidden layer: one sees the left half of the pictures, one the right half, one the left half from
other seeds, and one a part of the right half. The first three are equally good by construction. All
networks of a few runs learn at once, stacked in one tensor, each from its own seed.

    python -m benchmarks.error_rates [--runs 400] [--write]
"""

import argparse
import time

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.results import write_result
from tlbook import load_dataset
from tlbook.significance import corrected_t_test, sign_flip_test

IMAGES, FOLDS, REPEATS = 300, 5, 4
HIDDEN, STEPS, BATCH, RATE = 16, 60, 48, 0.01
TOGETHER = 5  # runs whose networks learn at once
COLUMNS = {"left": slice(0, 7), "right": slice(7, 14), "left again": slice(0, 7),
           "part of right": slice(10, 14)}  # fmt: skip
PAIRS = {
    "halves": ("left", "right"),
    "seeds": ("left", "left again"),
    "part": ("left", "part of right"),
}


def drawn(random: np.random.Generator, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """Return new data: images `(300, 14, 14)`, labels, and the fold of each image by repeat."""
    rows = random.choice(len(labels), IMAGES, replace=False)
    chosen = images[rows]
    mirrored = torch.from_numpy(random.random(IMAGES) < 0.5)
    chosen[mirrored] = chosen[mirrored].flip(2)
    folds = [random.permutation(IMAGES) % FOLDS for _ in range(REPEATS)]
    return chosen, labels[rows], torch.from_numpy(np.stack(folds))


def views(images: Tensor) -> Tensor:
    """Return what each network sees `(4, 300, 98)`, zeros where it sees less than a half."""
    seen = images.new_zeros(len(COLUMNS), *images.shape[:2], 7)
    for view, columns in zip(seen, COLUMNS.values(), strict=True):
        view[..., : columns.stop - columns.start] = images[..., columns]
    return seen.flatten(2)


def learnt(inputs: Tensor, targets: Tensor, items: Tensor, generator: torch.Generator) -> Tensor:
    """Train stacked networks and return their logits for all images `(networks, images, 10)`.

    Args:
        inputs: `(networks, images, pixels)`.
        targets: `(networks, images)`.
        items: that each network learns from `(networks, 240)`.
        generator: of first weights and batches.
    """
    count, _, pixels = inputs.shape
    shapes = [(pixels, HIDDEN), (1, HIDDEN), (HIDDEN, 10), (1, 10)]
    reach = [pixels**-0.5, pixels**-0.5, HIDDEN**-0.5, HIDDEN**-0.5]  # as nn.Linear draws them
    weights = [
        ((2 * torch.rand(count, *shape, generator=generator) - 1) * bound).requires_grad_()
        for shape, bound in zip(shapes, reach, strict=True)
    ]
    optimizer = torch.optim.Adam(weights, lr=RATE)
    networks = torch.arange(count)[:, None]

    def logits(x: Tensor) -> Tensor:
        return torch.baddbmm(
            weights[3], torch.baddbmm(weights[1], x, weights[0]).relu(), weights[2]
        )

    for _ in range(STEPS):
        picks = torch.randint(items.shape[1], (count, BATCH), generator=generator)
        rows = items.gather(1, picks)
        optimizer.zero_grad()
        outputs = logits(inputs[networks, rows]).flatten(0, 1)
        # A sum over networks, so that each has the gradient that it would have alone.
        (F.cross_entropy(outputs, targets[networks, rows].flatten()) * count).backward()
        optimizer.step()
    with torch.no_grad():
        return logits(inputs)


def measured(seed: int, images: Tensor, labels: Tensor) -> np.ndarray:
    """Return accuracies `(TOGETHER, networks, repeats, folds)` of a few runs."""
    random, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    data = [drawn(random, images, labels) for _ in range(TOGETHER)]
    shape = (TOGETHER, len(COLUMNS), REPEATS, FOLDS)
    inputs = torch.stack([views(chosen) for chosen, _, _ in data])[:, :, None, None]
    targets = torch.stack([labels for _, labels, _ in data])[:, None, None, None]
    number = torch.arange(FOLDS)[:, None]
    outside = torch.stack([folds[:, None] != number for _, _, folds in data])[:, None]
    outside = outside.expand(*shape, IMAGES).flatten(0, 3)
    targets = targets.expand(*shape, IMAGES).flatten(0, 3)
    items = outside.nonzero()[:, 1].view(len(outside), -1)
    inputs = inputs.expand(*shape, *inputs.shape[-2:]).flatten(0, 3)
    right = learnt(inputs, targets, items, generator).argmax(2) == targets
    return ((right & ~outside).sum(1) / (~outside).sum(1)).view(shape).double().numpy()


def rates(differences: np.ndarray) -> dict:
    """Return how often each test finds a difference, by repeats, from `(runs, repeats, folds)`."""
    found = {}
    for repeats in (1, 2, REPEATS):
        runs = differences[:, :repeats].reshape(len(differences), -1)
        tests = {
            "naive": [corrected_t_test(run, 0) for run in runs],
            "corrected": [corrected_t_test(run, 1 / (FOLDS - 1)) for run in runs],
            "sign flips": [sign_flip_test(run) for run in runs],
        }
        found[str(repeats)] = {
            "difference": round(float(runs.mean()), 4),
            "sd of the mean": round(float(runs.mean(1).std(ddof=1)), 5),
            "naive error": round(float(np.sqrt((runs.var(1, ddof=1) / runs.shape[1]).mean())), 5),
            **{name: round(float(np.mean(np.less(p, 0.05))), 4) for name, p in tests.items()},
        }
    return found


def main() -> None:
    """Train all networks of all runs, and print, or store, how often each test was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--write", action="store_true", help="store the result file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pictures, labels = load_dataset("fashion_mnist", "train").tensors
    pictures = pictures[:, 0, ::2, ::2]
    start = time.perf_counter()
    batches = range(options.runs // TOGETHER)
    scores = np.concatenate([measured(seed, pictures, labels) for seed in batches])
    networks = dict(zip(COLUMNS, scores.swapaxes(0, 1), strict=True))
    result = {
        "runs": len(scores), "images": IMAGES, "folds": FOLDS, "hidden": HIDDEN, "steps": STEPS,
        "seconds": round(time.perf_counter() - start),
        "accuracy": {name: round(float(found.mean()), 4) for name, found in networks.items()},
        "pairs": {name: rates(networks[a] - networks[b]) for name, (a, b) in PAIRS.items()},
    }  # fmt: skip
    print(result)
    if options.write:
        write_result("error_rates", result)


if __name__ == "__main__":
    main()
