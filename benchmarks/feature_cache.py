"""What keeping the outputs of a frozen part saves, at equal accuracy.

Ants and bees, 243 photographs to train on and 153 to validate after each of 25 epochs. The loop
without a cache reads every photograph and runs the backbone in every epoch; the other runs
`extract_features` once. The first is measured for a few epochs and extrapolated, and the result
says so, unless `--naive-epochs` asks for all of them; accuracies are compared over the epochs that
both have done. Then an epoch of HalfFrozenResNet as a whole, its photographs read anew or held in
memory, beside one of its second half on kept maps; the three take turns.

    python -m benchmarks.feature_cache [--naive-epochs 25] [--rounds 3] [--per-class N] [--write]
"""

import argparse
import copy
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from benchmarks.results import write_result
from tlbook import (
    HalfFrozenResNet,
    best_precision,
    extract_features,
    few_shot_subset,
    fit,
    freeze,
    get_head,
    load_dataset,
    load_pretrained,
    seed_everything,
    split_at,
    unfreeze,
)
from tlbook.training import History

CLASSES = 2
BATCH = 32


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a call returns, and its seconds."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def photographs(per_class: int | None, transform: Callable) -> tuple[Dataset, Dataset]:
    """Return training and validation photographs, all or the same number of each class."""
    parts = (load_dataset("hymenoptera", split, transform=transform) for split in ("train", "val"))
    if per_class is None:
        return tuple(parts)
    return tuple(few_shot_subset(part, per_class, seed=0) for part in parts)


def trained(model: nn.Module, train: Dataset, val: Dataset | None, epochs: int) -> History:
    """Train what is not frozen, in the same order each time."""
    optimizer = functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9)
    settings = {"epochs": epochs, "batch_size": BATCH, "optimizer": optimizer, "seed": 0}
    return fit(model, train, val, progress=False, **settings)


def accuracies(history: History) -> list[float]:
    return [round(row.val_accuracy, 4) for row in history.epochs]


def head_only(per_class: int | None, epochs: int, naive_epochs: int) -> dict:
    """Train a head behind EfficientNet-Lite0 without a cache and with one."""
    seed_everything(0)
    model, transform, _ = load_pretrained("efficientnet_lite0", CLASSES)
    train, val = photographs(per_class, transform)
    path = get_head(model).path
    unfreeze(freeze(model), path)
    head = copy.deepcopy(get_head(model).layer)
    backbone = copy.deepcopy(model)
    backbone.set_submodule(path, nn.Identity())

    naive, naive_seconds = timed(lambda: trained(model, train, val, naive_epochs))
    with tempfile.TemporaryDirectory() as folder:
        extract = functools.partial(extract_features, backbone, cache=folder, progress=False)
        parts, extraction_seconds = timed(lambda: [extract(part) for part in (train, val)])
        _, reading_seconds = timed(lambda: [extract(part) for part in (train, val)])
        cached, head_seconds = timed(lambda: trained(head, *parts, epochs))
    slow = naive_seconds / naive_epochs * epochs
    return {
        "photographs": [len(train), len(val)],
        "epochs": epochs,
        "epochs without a cache": naive_epochs,
        "extrapolated": naive_epochs < epochs,
        "precision": best_precision("cpu").name,
        "seconds without a cache": round(slow, 1),
        "seconds of the extraction": round(extraction_seconds, 1),
        "seconds to read the cache": round(reading_seconds, 2),
        "seconds of the head": round(head_seconds, 2),
        "times faster, extraction included": round(slow / (extraction_seconds + head_seconds), 1),
        "times faster, cache already there": round(slow / (reading_seconds + head_seconds), 1),
        "validation accuracy without a cache": accuracies(naive),
        "validation accuracy with a cache": accuracies(cached),
        "largest difference of losses": difference(naive, cached),
    }


def difference(first: History, second: History) -> float:
    """Return the largest difference of training losses over the epochs that both have done."""
    pairs = zip(first.epochs, second.epochs, strict=False)
    return round(max(abs(a.train_loss - b.train_loss) for a, b in pairs), 5)


def half_frozen(per_class: int | None, rounds: int) -> dict:
    """Measure epochs of a half-frozen ResNet-18, whole and from kept maps."""
    seed_everything(0)
    transform = load_pretrained("efficientnet_lite0").transform
    train, _ = photographs(per_class, transform)
    in_memory = TensorDataset(torch.stack([image for image, _ in train]), torch.tensor(
        [label for _, label in train]
    ))  # fmt: skip
    network = HalfFrozenResNet(num_classes=CLASSES)
    maps, extraction_seconds = timed(
        lambda: extract_features(split_at(network, "layer2")[0], train, progress=False)
    )
    data = {"photographs read": train, "in memory": in_memory, "kept maps": maps}
    times: dict[str, list[float]] = {name: [] for name in data}
    for _ in range(rounds):
        histories = {}
        for name, examples in data.items():
            start = copy.deepcopy(network)
            part = split_at(start, "layer2")[1] if name == "kept maps" else start
            call = functools.partial(trained, part, examples, None, 1)
            histories[name], seconds = timed(call)
            times[name].append(seconds)
    ratios = {
        name: statistics.median(a / b for a, b in zip(times[name], times["kept maps"], strict=True))
        for name in ("photographs read", "in memory")
    }
    return {
        "photographs": len(train),
        "rounds": rounds,
        "seconds of an epoch": {k: round(statistics.median(v), 2) for k, v in times.items()},
        "seconds of the extraction": round(extraction_seconds, 1),
        "times faster than": {name: round(ratio, 2) for name, ratio in ratios.items()},
        "bytes kept for each photograph": maps.tensors[0][0].nbytes,
        "loss of the first epoch": {
            name: round(history.epochs[0].train_loss, 4) for name, history in histories.items()
        },
    }


def main() -> None:
    """Measure both, print and, if asked, store the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--naive-epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--per-class", type=int, help="fewer photographs, to try it out")
    parser.add_argument("--write", action="store_true", help="store the result file")
    options = parser.parse_args()
    measured = {
        "head": head_only(options.per_class, options.epochs, options.naive_epochs),
        "half-frozen ResNet-18": half_frozen(options.per_class, options.rounds),
    }
    for name, result in measured.items():
        print(name)
        for key, value in result.items():
            print(f"  {key}: {value}")
    if options.write:
        write_result("feature_cache", measured)


if __name__ == "__main__":
    main()
