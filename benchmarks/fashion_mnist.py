"""What the book's small networks reach on the full Fashion-MNIST, and in which time.

Of the 60,000 training images 6,000 are set apart, stratified, for choosing the best epoch; the
10,000 test images are looked at once, after that. ResNet-18 gets the images at their own 28 pixels;
what it would cost at 224 pixels is measured on a few batches and extrapolated, and says so.

    python -m benchmarks.fashion_mnist [slim_vgg resnet18 hybrid upscaled] [--seeds 0 1 2] [--write]

Networks and seeds that are in the result file already are not trained again.
"""

import argparse
import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import TensorDataset
from torchvision.models import resnet18

from benchmarks.results import stored_result, write_result
from tlbook import (
    HybridNet,
    SlimVGG,
    evaluate,
    fit,
    load_dataset,
    replace_stem,
    seed_everything,
    stratified_split,
    summary,
)

BATCH = 250  # divides 54,000, 6,000 and 10,000: one shape to compile for
RATE = 0.1  # the highest of a one-cycle schedule with SGD


class Recipe(NamedTuple):
    """How one network is built and trained."""

    build: Callable[[], nn.Module]
    epochs: int
    seeds: int
    side: int = 28
    compiled: bool = False
    precision: str = "auto"


class Mirrored(nn.Module):
    """Show each training image mirrored with probability one half: clothes have no left side."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(N, 1, S, S)` to logits."""
        if self.training:
            mirrored = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
            x = torch.where(mirrored, x.flip(3), x)
        return self.network(x)


def grey_resnet() -> nn.Module:
    return replace_stem(resnet18(weights=None, num_classes=10), in_channels=1)


# ResNet-18's last maps have one pixel here: its time goes into weights, which autocast converts.
RECIPES = {
    "slim_vgg": Recipe(SlimVGG, epochs=16, seeds=3, compiled=True),
    "resnet18": Recipe(grey_resnet, epochs=6, seeds=3, precision="float32"),
    "hybrid": Recipe(HybridNet, epochs=8, seeds=1, side=32),
}


def normalised(split: str, side: int = 28) -> TensorDataset:
    """Return normalised images `(N, 1, side, side)`, zeros around small ones."""
    images, targets = load_dataset("fashion_mnist_full", split).tensors
    border = (side - 28) // 2
    return TensorDataset(F.pad((images - 0.286) / 0.353, [border] * 4), targets)


def trained(recipe: Recipe, seed: int) -> dict:
    """Train one network from one seed and look at the test images once."""
    train, val = stratified_split(normalised("train", recipe.side), [0.9, 0.1], seed=0)
    seed_everything(seed)
    model = Mirrored(recipe.build())
    if recipe.compiled:
        model.compile()
    start = time.perf_counter()
    history = fit(
        model,
        train,
        val,
        epochs=recipe.epochs,
        batch_size=BATCH,
        optimizer=functools.partial(
            torch.optim.SGD, lr=RATE, momentum=0.9, nesterov=True, weight_decay=5e-4
        ),
        scheduler=functools.partial(
            OneCycleLR, max_lr=RATE, total_steps=recipe.epochs * len(train) // BATCH
        ),
        scheduler_step="batch",
        precision=recipe.precision,
        seed=seed,
    )
    seconds = time.perf_counter() - start
    tested = evaluate(
        model, normalised("test", recipe.side), batch_size=BATCH, precision=recipe.precision
    )
    best = history.epochs[history.best_epoch - 1]
    return {
        "seed": seed,
        "test accuracy": round(tested.accuracy, 4),
        "validation accuracy": round(best.val_accuracy, 4),
        "best epoch": history.best_epoch,
        "epochs": recipe.epochs,
        "seconds": round(seconds),
        "threads": torch.get_num_threads(),
        "images per second": round(max(row.examples_per_second for row in history.epochs)),
        "history": history.rows(),
    }


def upscaled() -> dict:
    """Measure ResNet-18 at 28 pixels and at 224 for a few batches in turns, and extrapolate."""
    images, targets = normalised("train").tensors
    few = {
        28: (TensorDataset(images[:4000], targets[:4000]), RECIPES["resnet18"].precision, BATCH),
        224: (TensorDataset(F.interpolate(images[:256], size=224), targets[:256]), "auto", 32),
    }
    rates = dict.fromkeys(few, 0.0)
    for _ in range(3):
        for side, (data, precision, batch) in few.items():
            history = fit(grey_resnet(), data, epochs=1, batch_size=batch, precision=precision)
            rates[side] = max(rates[side], history.epochs[0].examples_per_second)
    return {
        "images per second": {str(side): round(rate, 1) for side, rate in rates.items()},
        "times slower": round(rates[28] / rates[224], 1),
        "extrapolated hours for 10 epochs": round(10 * 54_000 / rates[224] / 3600, 1),
        "threads": torch.get_num_threads(),
    }


def entry(name: str, result: dict, stored: dict) -> dict:
    """Return what belongs under a network's name: its costs and all its runs, with a new one."""
    if name == "upscaled":
        return result
    recipe = RECIPES[name]
    costs = summary(recipe.build(), (1, 1, recipe.side, recipe.side))
    runs = [*stored.get(name, {}).get("runs", []), result]
    return {
        "parameters": costs.total_params,
        "mult-adds": costs.total_mult_adds,
        "runs": sorted(runs, key=lambda run: run["seed"]),
    }


def main() -> None:
    """Train what is asked for and print, or store, each result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=[*RECIPES, "upscaled"])
    parser.add_argument("--seeds", nargs="*", type=int)
    parser.add_argument("--write", action="store_true", help="store the result file")
    options = parser.parse_args()
    for name in options.networks:
        seeds = [None] if name == "upscaled" else options.seeds or range(RECIPES[name].seeds)
        for seed in seeds:
            done = stored_result("fashion_mnist").get(name, {})
            if seed in [run["seed"] for run in done.get("runs", [])]:
                continue
            result = upscaled() if name == "upscaled" else trained(RECIPES[name], seed)
            shown = {key: value for key, value in result.items() if key != "history"}
            print(name, shown, flush=True)
            if options.write:
                stored = stored_result("fashion_mnist")  # another process may have added to it
                stored[name] = entry(name, result, stored)
                write_result("fashion_mnist", stored)


if __name__ == "__main__":
    main()
