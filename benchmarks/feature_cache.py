"""What keeping the outputs of a frozen part saves, at equal accuracy.

Ants and bees, 244 photographs to train on and 153 to validate after each of 25 epochs. The loop
without a cache reads every photograph and runs the backbone in every epoch; the other runs
`extract_features` once, and its head learns from the rows. Both start with the same head, see the
same order and compute in the same number format. A plain loop in float32 is timed beside them; it
does a few epochs, which all cost the same, and the result says how many. Extractions stand before,
between and after the loops, so that another load on the machine shows.

Then epochs of HalfFrozenResNet as a whole, its photographs read anew or held in memory, beside
one of its second half on kept maps; the three take turns.

    python -m benchmarks.feature_cache [--naive-epochs N] [--rounds N] [--per-class N] [--write]
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
EPOCHS = 25
EXTRACTION_BATCH = 8  # a photograph takes less time on two cores than in a batch of 64


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


def trained(
    model: nn.Module, train: Dataset, val: Dataset | None, epochs: int, precision: str = "auto"
) -> History:
    """Train what is not frozen, in the same order each time."""
    optimizer = functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9)
    settings = {"batch_size": BATCH, "optimizer": optimizer, "seed": 0, "precision": precision}
    return fit(model, train, val, epochs=epochs, progress=False, **settings)


def with_cache(
    backbone: nn.Module, head: nn.Module, parts: tuple[Dataset, Dataset]
) -> tuple[History, dict[str, float]]:
    """Train a copy of the head on features: what was measured, and the seconds of each part."""
    with tempfile.TemporaryDirectory() as folder:
        extract = functools.partial(
            extract_features, backbone, cache=folder, batch_size=EXTRACTION_BATCH, progress=False
        )
        kept, extraction = timed(lambda: [extract(part) for part in parts])
        _, reading = timed(lambda: [extract(part) for part in parts])
        history, training = timed(lambda: trained(copy.deepcopy(head), *kept, EPOCHS))
    return history, {"extraction": extraction, "reading the cache": reading, "head": training}


def head_only(per_class: int | None, naive_epochs: dict[str, int]) -> dict:
    """Train a head behind EfficientNet-Lite0 without a cache and with one."""
    seed_everything(0)
    model, transform, _ = load_pretrained("efficientnet_lite0", CLASSES)
    parts = photographs(per_class, transform)
    path = get_head(model).path
    unfreeze(freeze(model), path)
    head, backbone = copy.deepcopy(get_head(model).layer), copy.deepcopy(model)
    backbone.set_submodule(path, nn.Identity())

    with_cache(backbone, head, photographs(BATCH, transform))  # for nothing: kernels are chosen
    runs, naive, seconds = [with_cache(backbone, head, parts)], {}, {}
    for precision, epochs in naive_epochs.items():
        naive[precision] = trained(copy.deepcopy(model), *parts, epochs, precision)
        seconds[precision] = EPOCHS * seconds_of_an_epoch(naive[precision])
        runs.append(with_cache(backbone, head, parts))
    history, times = runs[0][0], {key: [run[1][key] for run in runs] for key in runs[0][1]}
    kept = {key: statistics.median(values) for key, values in times.items()}
    first, later = kept["extraction"] + kept["head"], kept["reading the cache"] + kept["head"]
    return {
        "photographs": [len(part) for part in parts],
        "epochs": EPOCHS,
        "precision with a cache": best_precision("cpu").name,
        "epochs done without a cache": naive_epochs,
        "seconds without a cache": {key: round(total, 1) for key, total in seconds.items()},
        "seconds with a cache": {key: round(value, 2) for key, value in kept.items()},
        "seconds with a cache, each time": rounded(times),
        "times faster, extraction included": ratios(seconds, first),
        "times faster, cache already there": ratios(seconds, later),
        "validation accuracy without a cache": {key: accuracies(run) for key, run in naive.items()},
        "validation accuracy with a cache": accuracies(history),
        "largest difference of losses": {
            key: difference(run, history) for key, run in naive.items()
        },
    }


def seconds_of_an_epoch(history: History) -> float:
    """Return the mean over all epochs but the first, in which kernels are chosen."""
    rows = history.epochs[1:] or history.epochs
    return statistics.mean(row.seconds for row in rows)


def ratios(seconds: dict[str, float], kept: float) -> dict[str, float]:
    return {key: round(total / kept, 1) for key, total in seconds.items()}


def rounded(times: dict[str, list[float]]) -> dict[str, list[float]]:
    return {key: [round(value, 2) for value in values] for key, values in times.items()}


def accuracies(history: History) -> list[float]:
    return [round(row.val_accuracy, 4) for row in history.epochs]


def difference(first: History, second: History) -> float:
    """Return the largest difference of training losses over the epochs that both have done."""
    pairs = zip(first.epochs, second.epochs, strict=False)
    return round(max(abs(a.train_loss - b.train_loss) for a, b in pairs), 5)


def half_frozen(per_class: int | None, rounds: int) -> dict:
    """Measure epochs of a half-frozen ResNet-18, whole and from kept maps."""
    seed_everything(0)
    transform = load_pretrained("efficientnet_lite0").transform
    train, _ = photographs(per_class, transform)
    images, labels = zip(*train, strict=True)
    in_memory = TensorDataset(torch.stack(images), torch.tensor(labels))
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
            histories[name] = trained(part, examples, None, 1)
            times[name].append(histories[name].epochs[0].seconds)
    faster = {
        name: statistics.median(a / b for a, b in zip(times[name], times["kept maps"], strict=True))
        for name in ("photographs read", "in memory")
    }
    return {
        "photographs": len(train),
        "precision": best_precision("cpu").name,
        "seconds of an epoch": {k: round(statistics.median(v), 2) for k, v in times.items()},
        "seconds of an epoch, each time": rounded(times),
        "seconds of the extraction": round(extraction_seconds, 1),
        "times faster than": {name: round(ratio, 2) for name, ratio in faster.items()},
        "bytes kept for each photograph": maps.tensors[0][0].nbytes,
        "loss of the first epoch": {
            name: round(history.epochs[0].train_loss, 4) for name, history in histories.items()
        },
    }


def main() -> None:
    """Measure both, print and, if asked, store the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--naive-epochs", type=int, default=EPOCHS, help="without a cache")
    parser.add_argument("--plain-epochs", type=int, default=3, help="the same in float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--per-class", type=int, help="fewer photographs, to try it out")
    parser.add_argument("--write", action="store_true", help="store the result file")
    options = parser.parse_args()
    # Where float32 is the best format, there is one loop, and it does all epochs.
    naive_epochs = {"float32": options.plain_epochs}
    naive_epochs |= {best_precision("cpu").name: options.naive_epochs}
    measured = {}
    for name, measure in (
        ("head", lambda: head_only(options.per_class, naive_epochs)),
        ("half-frozen ResNet-18", lambda: half_frozen(options.per_class, options.rounds)),
    ):
        measured[name] = measure()
        print(name)
        for key, value in measured[name].items():
            print(f"  {key}: {value}", flush=True)
    if options.write:
        write_result("feature_cache", measured)


if __name__ == "__main__":
    main()
