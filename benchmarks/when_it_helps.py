"""When transfer helps: accuracy against labelled images per class, with and without transfer.

`fashion`: five classes of Fashion-MNIST are the target, the other five the source. The network is
a ResNet-18 without layer4, which would work on a single position of 28 pixels. Its conv1 to layer2
come from a donor and stay frozen (HalfFrozenResNet), or it is trained as a whole, from scratch or
from tlbook's own donor (`bundled`). The donors see an image 48,000 times: of the 6,000 source
images, with their labels (`related`) or with shuffled labels; of 6,000 crops of solar cells
(`unrelated`); or of all 12,000 training images, the target's too, with no labels (`auto-encoder`).

`solar`: EfficientNet-Lite0 at 72 pixels, fine-tuned from ImageNet or from scratch, or frozen with
a linear head; balanced accuracy on 656 test cells.

All ways take the same number of steps on the same images: a draw for each seed, with the same
number of every class; "all" is as many as the rarest class has. The learning rate of each is chosen
at 20 images per class, on training images outside the draw, with a seed that is not reported; a
longer training takes the rate of the shorter. No augmentation; test images choose nothing.

    python -m benchmarks.when_it_helps [fashion solar] [--seeds 0 1 2 3 4] [--write]
    python -m benchmarks.when_it_helps --seeds 0 --sizes 5 --shrink 10   # a try

Takes about an hour on one core, half of it for `solar`. What is in the result file already is not
run again; donors are kept in the cache folder.
"""

import argparse
import contextlib
import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmarks.donors import DONORS, clothes, donor, grey_cells, sgd, trained, without_layer4
from benchmarks.results import stored_result, write_result
from tlbook import (
    HalfFrozenResNet,
    TrainingError,
    few_shot_subset,
    linear_probe,
    load_pretrained,
    predict,
    seed_everything,
    split_at,
    unfreeze,
)
from tlbook.weights import FASHION_SOURCE

NAME = "when_it_helps"
SIZES = ("5", "10", "20", "50", "all")
SEEDS, RATE_SEED, RATE_SIZE = range(5), 100, "20"
TARGET = tuple(label for label in range(10) if label not in FASHION_SOURCE)
SIDE = 72  # pixels of a solar cell


class Task(NamedTuple):
    """Images to draw from, images to test on, and the budget."""

    pool: TensorDataset
    test: TensorDataset
    batch: int  # of a training on few images
    steps: int
    large_batch: int  # of a training on all images
    passes: int
    rates: tuple[float, ...]
    optimizer: Callable[..., torch.optim.Optimizer]
    precision: str


class Way(NamedTuple):
    """One way to come to a network for the target."""

    build: Callable[[int], nn.Module] | None  # of the seed; None is a linear head
    longer: int = 1  # how many times the budget
    like: str = ""  # the way whose learning rate it takes
    sizes: tuple[str, ...] = SIZES


def cut(model: nn.Module, *parts: TensorDataset) -> tuple[nn.Module, list[TensorDataset]]:
    """Run the frozen half once; return what trains and the maps that it trains on."""
    front, back = split_at(model, "layer2")
    maps = [predict(front, part, precision="auto") for part in parts]
    pairs = zip(maps, parts, strict=True)
    return back, [TensorDataset(rows, part.tensors[1]) for rows, part in pairs]


def drawn(pool: TensorDataset, size: str, seed: int) -> TensorDataset:
    """Return the training images of a seed: so many of each class, as many as the rarest has."""
    most = int(torch.bincount(pool.tensors[1]).min())
    chosen = few_shot_subset(pool, most if size == "all" else int(size), seed=seed).indices
    return TensorDataset(*(tensor[chosen] for tensor in pool.tensors))


def outside(pool: TensorDataset, size: str, seed: int) -> TensorDataset:
    """Return up to 1,000 images that `drawn` has left, to choose a learning rate on."""
    taken = set(few_shot_subset(pool, int(size), seed=seed).indices)
    rest = [i for i in range(len(pool)) if i not in taken]
    chosen = np.random.default_rng(seed).permutation(rest)[:1000]
    return TensorDataset(*(tensor[chosen] for tensor in pool.tensors))


def balanced(targets: Tensor, called: Any) -> float:
    """Return the mean, over the classes, of the share called right."""
    return round(float(balanced_accuracy_score(targets.numpy(), np.asarray(called))), 4)


def score(
    task: Task, way: Way, size: str, seed: int, rate: float, test: TensorDataset | None = None
) -> float:
    """Train on the draw of a seed and return the balanced accuracy on the test images."""
    train, test = drawn(task.pool, size, seed), test or task.test
    seed_everything(seed)
    model = way.build(seed)
    if isinstance(model, HalfFrozenResNet) and not model.conv1.weight.requires_grad:
        model, (train, test) = cut(model, train, test)
    batch = task.large_batch if size == "all" else min(task.batch, len(train))
    few = max(1, task.steps // math.ceil(len(train) / batch))
    passes = way.longer * (task.passes if size == "all" else few)
    trained(model, train, passes, batch, rate, task.optimizer, task.precision, seed=seed)
    return balanced(test.tensors[1], predict(model, test, precision=task.precision).argmax(dim=1))


def chosen_rate(task: Task, way: Way) -> float:
    """Return the learning rate that does best on training images outside a draw."""
    left = outside(task.pool, RATE_SIZE, RATE_SEED)
    scores = {}
    for rate in task.rates:
        with contextlib.suppress(TrainingError):  # a rate at which the loss explodes
            scores[rate] = score(task, way, RATE_SIZE, RATE_SEED, rate, left)
    print(f"   rates {scores}", flush=True)
    return max(scores, key=scores.get)


def half_frozen(name: str | None, shrink: int, whole: bool = False) -> Callable[[int], nn.Module]:
    """Return what builds the target's network on a donor; None is an untrained one."""

    def build(seed: int) -> nn.Module:
        giver = donor(name, shrink) if name in DONORS else None
        if name == "bundled":
            giver = load_pretrained("resnet18_fashion").model
        seed_everything(seed)  # the fresh half is the same, whatever the donor
        net = HalfFrozenResNet(3, len(TARGET), image_size=28, donor=giver)
        without_layer4(net, len(TARGET))
        return unfreeze(net) if whole else net

    return build


def fashion(shrink: int) -> tuple[Task, dict[str, Way]]:
    """Return the target of Fashion-MNIST and the ways to its network."""
    parts = (clothes(split, TARGET, shrink) for split in ("train", "test"))
    scratch = half_frozen(None, shrink, whole=True)
    ways = {
        "from scratch": Way(scratch),
        **{name: Way(half_frozen(name, shrink)) for name in DONORS},
        "untrained, frozen": Way(half_frozen(None, shrink)),
        "bundled, fine-tuned": Way(half_frozen("bundled", shrink, whole=True)),
        "from scratch, 4 times as long": Way(scratch, 4, "from scratch", ("50",)),
    }
    return Task(*parts, 25, 100 // shrink, 100, 2, (0.003, 0.01, 0.03, 0.1), sgd, "auto"), ways


def solar(shrink: int) -> tuple[Task, dict[str, Way]]:
    """Return the solar cells and the ways to a network for them."""
    grey, data = grey_cells(SIDE)
    kinds = [f"{kind} {label}" for kind, label in zip(data.cell_types, data.targets, strict=True)]
    rows = np.arange(len(data))
    train, test = train_test_split(rows, test_size=0.25, stratify=kinds, random_state=0)
    images = grey.expand(-1, 3, -1, -1) / 127.5 - 1
    parts = (TensorDataset(images[part], data.targets[part]) for part in (train[::shrink], test))

    def fresh(seed: int) -> nn.Module:
        return timm.create_model("tf_efficientnet_lite0", num_classes=2)

    def pretrained(seed: int) -> nn.Module:
        return load_pretrained("efficientnet_lite0", num_classes=2).model

    ways = {
        "from scratch": Way(fresh),
        "ImageNet, fine-tuned": Way(pretrained),
        "ImageNet, frozen": Way(None),
        "from scratch, 4 times as long": Way(fresh, 4, "from scratch", ("50",)),
    }
    # Depthwise convolutions train slower in bfloat16.
    rates = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    return Task(*parts, 10, 80 // shrink, 20, 2, rates, torch.optim.AdamW, "float32"), ways


@functools.cache
def features_of_cells(images: TensorDataset) -> Tensor:
    """Return the features `(N, 1280)` of cells under the frozen backbone."""
    net = load_pretrained("efficientnet_lite0").model.to(memory_format=torch.channels_last)
    net.reset_classifier(0)
    return predict(net, images, batch_size=32, precision="auto")


def frozen_score(task: Task, size: str, seed: int) -> float:
    """Fit a linear head to frozen features of the draw and return the balanced accuracy."""
    features = TensorDataset(features_of_cells(task.pool), task.pool.tensors[1])
    rows, targets = drawn(features, size, seed).tensors
    probe = linear_probe(rows, targets, seed=seed)
    return balanced(task.test.tensors[1], probe.predict(features_of_cells(task.test).numpy()))


class Results:
    """The results so far, kept in the result file if asked."""

    def __init__(self, write: bool) -> None:
        self.write, self.kept = write, {}

    def read(self) -> dict:
        """Return all that is kept."""
        return stored_result(NAME) if self.write else self.kept

    def find(self, *keys: str) -> Any:
        """Return what is kept under these keys, or None."""
        found = self.read()
        for key in keys:
            found = found.get(key, {})
        return found if found != {} else None

    def add(self, value: Any, *keys: str) -> None:
        """Keep a value under these keys; what another process has added meanwhile stays."""
        stored = place = self.read()
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = value
        self.kept = stored
        if self.write:
            write_result(NAME, stored)


def rate_of(results: Results, name: str, way_name: str, task: Task, ways: dict[str, Way]) -> float:
    """Return the learning rate of a way, chosen at its first use."""
    rate = results.find(name, way_name, "rate")
    if rate is None:
        like = ways[way_name].like
        rate = (
            rate_of(results, name, like, task, ways) if like else chosen_rate(task, ways[way_name])
        )
        results.add(rate, name, way_name, "rate")
    return rate


def run_way(
    results: Results, name: str, way_name: str, task: Task, ways: dict[str, Way], options: Any
) -> None:
    """Run one way for all sizes and seeds that are not in the results yet."""
    way, start = ways[way_name], time.perf_counter()
    for size in (size for size in options.sizes if size in way.sizes):
        for seed in options.seeds:
            where = (name, way_name, "accuracy", size, str(seed))
            if results.find(*where) is not None:
                continue
            if way.build is None:
                results.add(frozen_score(task, size, seed), *where)
            else:
                rate = rate_of(results, name, way_name, task, ways)
                results.add(score(task, way, size, seed, rate), *where)
    print(f"{name}, {way_name} ({time.perf_counter() - start:.0f} s):", end=" ")
    print(results.find(name, way_name), flush=True)


def main() -> None:
    """Run what is asked for and not yet done, print it, and store it if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=["fashion", "solar"])
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--sizes", nargs="*", default=list(SIZES))
    parser.add_argument("--ways", nargs="*", help="only these")
    parser.add_argument("--shrink", type=int, default=1, help="an n-th of images and steps only")
    parser.add_argument("--write", action="store_true", help="store the result file")
    options = parser.parse_args()
    results = Results(options.write)
    for name in options.tasks:
        task, ways = {"fashion": fashion, "solar": solar}[name](options.shrink)
        for way_name in [way for way in ways if way in (options.ways or ways)]:
            run_way(results, name, way_name, task, ways, options)


if __name__ == "__main__":
    main()
