"""Small adapters against full fine-tuning, five seeds each.

The first half of a ResNet-18 (`resnet18_fashion`) learns the five classes of Fashion-MNIST that it
has never seen, from 200 images, drawn anew for every seed. Every way has the learning rate, out of
four, that does best on 200 images after training on 200 others; neither occurs anywhere else. No
epoch is picked. The test images are looked at once by each trained network.

    python -m benchmarks.adapters [--seeds 0 1 2 3 4] [--quick] [--write]

What the result file holds already is not run again.
"""

import argparse
import copy
import functools
import math
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import Dataset, TensorDataset

from benchmarks.results import stored_result, write_result
from tlbook import (
    evaluate,
    few_shot_subset,
    fit,
    freeze,
    load_dataset,
    load_pretrained,
    replace,
    stratified_split,
    trainable_parameters,
)
from tlbook.weights import FASHION_MEAN, FASHION_SD, FASHION_SOURCE

UNSEEN = tuple(label for label in range(10) if label not in FASHION_SOURCE)
PER_CLASS, BATCH, EPOCHS = 40, 20, 6
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
NORMS = nn.BatchNorm2d
Hold = Callable[[nn.Module], Any]


class LoRA(nn.Module):
    """A layer as it is, plus a product of two small ones that begins at zero."""

    def __init__(self, base: nn.Conv2d, rank: int, alpha: float) -> None:
        super().__init__()
        self.base, self.scale = base, alpha / rank
        form = (base.kernel_size, base.stride, base.padding, base.dilation)
        self.down = nn.Conv2d(base.in_channels, rank, *form, bias=False)
        self.up = nn.Conv2d(rank, base.out_channels, 1, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map what the layer maps."""
        return self.base(x) + self.scale * self.up(self.down(x))


class Bottleneck(nn.Module):
    """Maps through few channels and back, added to what comes in; begins as the identity."""

    def __init__(self, channels: int, width: int = 8) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, width, 1), nn.Conv2d(width, channels, 1)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map maps `(N, C, H, W)` to maps of the same shape."""
        return x + self.up(self.down(x).relu())


def with_lora(model: nn.Module, *, rank: int = 4, hold: Hold = freeze) -> None:
    """Put LoRA beside every convolution but the stem."""
    hold(model)
    for path, layer in list(model.named_modules()):
        if isinstance(layer, nn.Conv2d) and layer.in_channels > 3:
            replace(model, path, LoRA(layer, rank, alpha=8))


def with_bottlenecks(model: nn.Module) -> None:
    """Put a bottleneck of eight channels behind every block."""
    freeze(model)
    for path in ("layer1.0", "layer1.1", "layer2.0", "layer2.1"):
        block = model.get_submodule(path)
        replace(model, path, nn.Sequential(block, Bottleneck(block.conv2.out_channels)))


def hold_statistics(model: nn.Module) -> None:
    """Hold the BatchNorms in evaluation mode; their weight and bias train."""
    for path, module in list(model.named_modules()):
        if isinstance(module, NORMS):
            freeze(model, path)
            module.requires_grad_(True)


def norms_only(model: nn.Module) -> None:
    """Train weight and bias of the BatchNorms, and nothing else."""
    freeze(model)
    for module in model.modules():
        if isinstance(module, NORMS):
            module.requires_grad_(True)


WAYS: dict[str, Hold] = {
    "head only": freeze,
    "norms only": norms_only,
    "bottlenecks": with_bottlenecks,
    "LoRA, rank 4": with_lora,
    "LoRA, rank 16": functools.partial(with_lora, rank=16),
    "LoRA, statistics free": functools.partial(
        with_lora, hold=lambda model: model.requires_grad_(False)
    ),
    "full, statistics held": hold_statistics,
    "full": lambda model: None,
}


@functools.cache
def pretrained() -> nn.Module:
    """Return the network without the layers that are not pretrained."""
    model = load_pretrained("resnet18_fashion").model
    for later in ("layer3", "layer4"):
        replace(model, later, nn.Identity())
    return model


@functools.cache
def unseen(split: str) -> TensorDataset:
    """Return the images `(N, 3, 28, 28)` of the classes never seen, which count from 0 anew."""
    images, labels = load_dataset("fashion_mnist", split).tensors
    known = torch.tensor(UNSEEN)
    rows = torch.isin(labels, known)
    normalised = (images[rows].expand(-1, 3, -1, -1) - FASHION_MEAN) / FASHION_SD
    return TensorDataset(normalised, torch.searchsorted(known, labels[rows]))


@functools.cache
def pools() -> tuple[Dataset, Dataset]:
    """Return two disjoint halves of the training split: for the rates, and for the runs."""
    return stratified_split(unseen("train"), (0.5, 0.5), seed=0)


def built(way: str, seed: int) -> nn.Module:
    """Return the network in the state in which a way begins; one seed has one head."""
    model = copy.deepcopy(pretrained())
    torch.manual_seed(seed)
    WAYS[way](model)
    torch.manual_seed(seed)  # the ways have drawn differently many numbers
    return replace(model, "fc", nn.Linear(128, len(UNSEEN)))


def trained(way: str, train: Dataset, rate: float, seed: int) -> tuple[nn.Module, float]:
    """Train one way; return the network and the images it has trained on in a second."""
    model, steps = built(way, seed), EPOCHS * math.ceil(len(train) / BATCH)
    history = fit(
        model,
        train,
        epochs=EPOCHS,
        batch_size=BATCH,
        optimizer=functools.partial(torch.optim.AdamW, lr=rate),
        scheduler=functools.partial(CosineAnnealingLR, T_max=steps),
        scheduler_step="batch",
        precision="float32",
        progress=False,
        seed=seed,
    )
    return model, statistics.median(row.examples_per_second for row in history.epochs)


def chosen_rate(way: str, quick: bool) -> dict:
    """Train one way at every rate, and judge it by images that it has not seen."""
    size = len(UNSEEN) * (4 if quick else PER_CLASS)
    train, held_out = stratified_split(pools()[0], (size, size), seed=0)
    found = {}
    for rate in RATES:
        model, _ = trained(way, train, rate, 0)
        found[f"{rate:g}"] = round(evaluate(model, held_out).accuracy, 4)
    return {"rate": max(RATES, key=lambda rate: found[f"{rate:g}"]), "accuracy by rate": found}


def one_run(way: str, rate: float, seed: int, quick: bool) -> dict:
    """Train one way from one seed and look at the test images once."""
    train = few_shot_subset(pools()[1], 4 if quick else PER_CLASS, seed=seed)
    model, speed = trained(way, train, rate, seed)
    return {
        "seed": seed,
        "test accuracy": round(evaluate(model, unseen("test")).accuracy, 4),
        "trainable": sum(p.numel() for p in trainable_parameters(model)),
        "parameters": sum(p.numel() for p in model.parameters()),
        "images per second": round(speed, 1),
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Choose the rate of every way, train it from every seed, and print or store each result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="*", type=int, default=range(5))
    parser.add_argument("--quick", action="store_true", help="few images, to try it out")
    parser.add_argument("--write", action="store_true", help="store the result file")
    options = parser.parse_args()
    measured = stored_result("adapters") if options.write else {}
    for way in WAYS:
        found = measured.setdefault(way, {"runs": []})
        if "choice" not in found:
            found["choice"] = chosen_rate(way, options.quick)
        print(way, found["choice"], flush=True)
        for seed in options.seeds:
            if seed in [run["seed"] for run in found["runs"]]:
                continue
            run = one_run(way, found["choice"]["rate"], seed, options.quick)
            found["runs"].append(run)
            print(way, run, flush=True)
            if options.write:
                write_result("adapters", measured)


if __name__ == "__main__":
    main()
