"""Fine-tune EfficientNet-Lite0 for solar cells: chosen by cross-validation, tested once.

Three random splits as in the paper: a quarter of the 2,624 cells is for testing, stratified by cell
type and by the experts' probability, and a cell counts as defective from 0.5 on. The 1,102 cells
that are for training in all three splits are the only ones that the search sees: a plain recipe,
two changes of it and both changes together, at 112 pixels, in three folds. The best goes into the
final runs, at 224 pixels, with nothing left to choose. The grouped runs hold out whole modules,
with the same recipe: some of their test cells were in the search.

The first stages do not train, and mirroring up-down and left-right gives four views of a cell:
what the first stages make of them is computed once.

    python -m benchmarks.solar_cells [search probe random grouped] [--seeds 0 1 2] [--write]
    python -m benchmarks.solar_cells --every 16 --size 64 --search-size 64 --epochs 1   # a try

Takes about an hour: the search 10 minutes on two cores, a final run 10 to 15 on one. The part
`grouped` fine-tunes once unless `--seeds` says otherwise. What is in the result file already is not
run again.
"""

import argparse
import math
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, train_test_split
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import TensorDataset
from torchvision.transforms import v2

from benchmarks.results import stored_result, write_result
from tlbook import (
    fit,
    linear_probe,
    load_dataset,
    load_pretrained,
    predict,
    seed_everything,
    to_linear,
)
from tlbook.features import FeatureDataset

NAME = "solar_cells"
PARTS = ("search", "probe", "random", "grouped")
BATCH, FOLDS, SEEDS = 16, 3, (0, 1, 2)
FLIPS = ((), (-1,), (-2,), (-1, -2))  # a mirrored cell is as sound as before
STRENGTHS = (1e-4, 1e-3, 1e-2)  # the views of a cell count four times


class Recipe(NamedTuple):
    """What may differ between two trainings."""

    soft: bool = False  # the experts' probability as target in place of the label
    probe: bool = False  # the head begins as a fitted probe, not at random
    frozen: int = 3  # stages in front of the cut
    rate: float = 5e-4
    epochs: int = 4
    size: int = 112


CHANGES: dict[str, dict[str, bool]] = {
    "plain": {},
    "soft targets": {"soft": True},
    "probe first": {"probe": True},
    "both": {"soft": True, "probe": True},
}


class Cells(NamedTuple):
    """What is known of the cells, photographs aside."""

    labels: np.ndarray
    probabilities: np.ndarray
    kinds: np.ndarray
    modules: np.ndarray
    every: int

    @property
    def strata(self) -> np.ndarray:
        """Cell type and probability in one word, what the splits are stratified by."""
        return np.char.add(self.kinds, np.char.mod(" %.2f", self.probabilities))


class Prepare(nn.Module):
    """Turn grey bytes `(N, 1, S, S)` into what the weights expect; maps become float32."""

    def forward(self, x: Tensor) -> Tensor:
        """Map bytes to three channels from -1 to 1."""
        return x.expand(-1, 3, -1, -1) / 127.5 - 1 if x.dtype is torch.uint8 else x.float()


class Back(nn.Module):
    """All behind the cut: maps to features `(N, 1280)`, features to logits `(N, 2)`."""

    def __init__(self, layers: list[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(*layers), head

    def forward(self, x: Tensor) -> Tensor:
        """Map what stands at the cut to logits."""
        return self.head(self.body(x))


class Reader(nn.Module):
    """Look up the stored views of cells by number: one at random to train, all four otherwise.

    Numbers `(N,)` become logits `(N, 2)` in training mode and `(N, 4, 2)` in evaluation mode.
    """

    def __init__(self, views: Tensor, network: nn.Module) -> None:
        super().__init__()
        self.views, self.network = views, network

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the network's outputs for one view of each cell, or for all."""
        if self.training:
            return self.network(self.views[numbers, torch.randint(len(FLIPS), numbers.shape)])
        outputs = self.network(self.views[numbers].flatten(0, 1))
        return outputs.unflatten(0, (-1, len(FLIPS)))


def divided(frozen: int) -> tuple[nn.Sequential, Back]:
    """Return a fresh copy of the pretrained network in two parts, behind its stage `frozen`."""
    net = load_pretrained("efficientnet_lite0", num_classes=2).model
    layers = [net.conv_stem, net.bn1, *net.blocks, net.conv_head, net.bn2, net.global_pool]
    place = 2 + frozen
    return nn.Sequential(Prepare(), *layers[:place]), Back(
        [Prepare(), *layers[place:]], net.classifier
    )


def module_numbers(kinds: np.ndarray) -> np.ndarray:
    """Return for each file a guess of the module that it is from.

    Files of one module stand together, and a module has one type of cell. The row of files has
    ten runs of one type; a run whose length is a multiple of 60 is cut into modules of 60 cells,
    another one into pieces of about 180, so that few joints can part a module.
    """
    ends = np.flatnonzero(kinds[1:] != kinds[:-1]) + 1
    numbers, count = [], 0
    for run in np.split(np.arange(len(kinds)), ends):
        pieces = len(run) // 60 if len(run) % 60 == 0 else max(1, round(len(run) / 180))
        for piece in np.array_split(run, pieces):
            numbers += [count] * len(piece)
            count += 1
    return np.array(numbers)


def load_cells(every: int) -> Cells:
    """Return labels, probabilities, types and modules, of every n-th cell for a try."""
    data = load_dataset("solar_cells", "all")
    kinds = np.array(data.cell_types)
    columns = data.targets.numpy(), data.probabilities.numpy(), kinds, module_numbers(kinds)
    return Cells(*(column[::every] for column in columns), every)


@lru_cache(maxsize=1)
def stored_views(size: int, frozen: int, every: int) -> Tensor:
    """Return what the frozen stages make of four views of each cell, `(cells, 4, C, H, W)`."""
    shrink = v2.Resize((size, size), interpolation=v2.InterpolationMode.BICUBIC)
    data = load_dataset("solar_cells", "all", transform=v2.Compose([shrink, v2.PILToTensor()]))
    grey = torch.stack([data[i][0] for i in range(0, len(data), every)])
    front = divided(frozen)[0].to(memory_format=torch.channels_last)
    views = None
    for place, flip in enumerate(FLIPS):
        flipped = TensorDataset(grey.flip(flip), torch.zeros(len(grey)))
        maps = predict(front, flipped, batch_size=32, precision="auto")
        if views is None:  # in half precision all cells at 224 pixels take 0.7 GB
            views = torch.empty(len(maps), len(FLIPS), *maps.shape[1:], dtype=torch.half)
        views[:, place] = maps
    return views


def numbered(cells: np.ndarray, targets: Tensor | None = None) -> TensorDataset:
    """Return the cells' numbers as inputs of a `Reader`."""
    targets = torch.zeros(len(cells)) if targets is None else targets[cells]
    return TensorDataset(torch.from_numpy(cells), targets)


@lru_cache(maxsize=1)
def stored_features(size: int, frozen: int, every: int) -> Tensor:
    """Return the features in front of the head, of four views of each cell, `(cells, 4, 1280)`."""
    views, back = stored_views(size, frozen, every), divided(frozen)[1]
    reader = Reader(views, back.body.to(memory_format=torch.channels_last))
    return predict(reader, numbered(np.arange(len(views))), batch_size=16, precision="auto")


def fitted_probe(features: Tensor, labels: np.ndarray, train: np.ndarray) -> Any:
    """Fit a linear head to all views of the training cells; views of one share a fold."""
    rows = features[train].transpose(0, 1).flatten(0, 1)
    targets = torch.from_numpy(labels[train]).repeat(len(FLIPS))
    views = FeatureDataset(rows, targets, range(len(train)))
    return linear_probe(views, folds=FOLDS, strengths=STRENGTHS)


def trained(recipe: Recipe, cells: Cells, train: np.ndarray, seed: int) -> Reader:
    """Train on the cells of these numbers; return the network with its views."""
    stored = recipe.size, recipe.frozen, cells.every
    views, features = stored_views(*stored), stored_features(*stored) if recipe.probe else None
    seed_everything(seed)  # after what may be there already or not
    back = divided(recipe.frozen)[1]
    if recipe.probe:
        back.head = to_linear(fitted_probe(features, cells.labels, train))
    share = torch.from_numpy(cells.probabilities if recipe.soft else cells.labels).float()
    reader = Reader(views, back)
    fit(
        reader,
        numbered(train, torch.stack([1 - share, share], dim=1)),
        epochs=recipe.epochs,
        batch_size=BATCH,
        optimizer=partial(torch.optim.AdamW, lr=recipe.rate, weight_decay=0.01),
        scheduler=partial(
            OneCycleLR,
            max_lr=recipe.rate,
            total_steps=recipe.epochs * math.ceil(len(train) / BATCH),
        ),
        scheduler_step="batch",
        device="cpu",  # where the views are
        precision="float32",  # depthwise convolutions train slower in bfloat16
        progress=False,
        seed=seed,
    )
    return reader


def judged(reader: Reader, numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Return the risk of each cell, in thousandths, by one view and by the mean of four."""
    reader.to(memory_format=torch.channels_last)
    outputs = predict(reader, numbered(numbers), batch_size=16, precision="auto")
    each = outputs.softmax(dim=-1)[..., 1].numpy()
    return {"upright": thousandths(each[:, 0]), "four views": thousandths(each.mean(axis=1))}


def thousandths(risk: np.ndarray) -> np.ndarray:
    """Round risks as they are stored, so that the file's numbers give the file's accuracy."""
    return np.rint(1000 * risk).astype(int)


def accuracy(risk: np.ndarray, labels: np.ndarray) -> float:
    """Return the accuracy of risks in thousandths."""
    return round(float(np.mean((risk >= 500) == labels)), 4)


def packed(numbers: np.ndarray) -> str:
    """Write whole numbers as one line of text."""
    return " ".join(map(str, numbers))


def random_split(cells: Cells, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return training and test cells of a quarter held out, stratified by type and probability."""
    everything = np.arange(len(cells.labels))
    return train_test_split(everything, test_size=0.25, stratify=cells.strata, random_state=seed)


def grouped_split(cells: Cells, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return training and test cells, one of four parts in whole modules held out, by the seed."""
    folds = StratifiedGroupKFold(4, shuffle=True, random_state=0)
    return list(folds.split(cells.labels, cells.strata, cells.modules))[seed]


SPLITS = {"random": random_split, "grouped": grouped_split}


def never_tested(cells: Cells) -> np.ndarray:
    """Return the cells that are for training in every random split: the search sees no others."""
    parts = [random_split(cells, seed)[0] for seed in SEEDS]
    return np.array(sorted(set(parts[0]).intersection(*parts[1:])))


def searched(recipe: Recipe, cells: Cells) -> dict:
    """Cross-validate one recipe on the cells that are tested nowhere."""
    start, pool = time.process_time(), never_tested(cells)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    risks: dict[str, np.ndarray] = {}
    for fold, (train, val) in enumerate(folds.split(pool, cells.strata[pool])):
        for way, risk in judged(trained(recipe, cells, pool[train], fold), pool[val]).items():
            risks.setdefault(way, np.zeros(len(pool), dtype=int))[val] = risk
    return {
        "recipe": recipe._asdict(),
        "accuracy": {way: accuracy(risk, cells.labels[pool]) for way, risk in risks.items()},
        "risk": {way: packed(risk) for way, risk in risks.items()},
        "cells": packed(pool),
        "processor minutes": round((time.process_time() - start) / 60, 1),
    }


def chosen(results: dict) -> tuple[Recipe, str]:
    """Return the best recipe of the search and the way of judging that was best with it."""
    search = results.get("search", {})
    if search.keys() != CHANGES.keys():
        raise SystemExit(f"the search has {list(search)}, expected {list(CHANGES)}: run it first")
    best = max(search.values(), key=lambda entry: max(entry["accuracy"].values()))
    return Recipe(**best["recipe"]), max(best["accuracy"], key=best["accuracy"].get)


def final_run(
    split: Callable, cells: Cells, options: argparse.Namespace, seed: int, results: dict
) -> dict:
    """Train the chosen recipe on one split and look at its test cells."""
    start = time.process_time()
    recipe, way = chosen(results)
    recipe = recipe._replace(size=options.size, epochs=options.epochs)
    train, test = split(cells, seed)
    risks = judged(trained(recipe, cells, train, seed), test)
    return {
        "seed": seed,
        "recipe": recipe._asdict(),
        "judged by": way,
        "test accuracy": accuracy(risks[way], cells.labels[test]),
        "both ways": {name: accuracy(risk, cells.labels[test]) for name, risk in risks.items()},
        "cells": packed(test),
        "risk": packed(risks[way]),
        "processor minutes": round((time.process_time() - start) / 60, 1),
    }


def probe_run(
    split: Callable, cells: Cells, options: argparse.Namespace, seed: int, results: dict
) -> dict:
    """Fit a linear head to frozen features: what fine-tuning has to beat on the same split."""
    train, test = split(cells, seed)
    features = stored_features(options.size, Recipe().frozen, cells.every)
    probe = fitted_probe(features, cells.labels, train)
    views = features[test].flatten(0, 1).numpy()
    each = probe.predict_proba(views)[:, 1].reshape(-1, len(FLIPS))
    risk = thousandths(each.mean(axis=1))
    return {
        "seed": seed,
        "test accuracy": accuracy(risk, cells.labels[test]),
        "cells": packed(test),
        "risk": packed(risk),
    }


class Adder:
    """Run what the result file does not hold, and put it there."""

    def __init__(self, write: bool) -> None:
        self.write, self.kept = write, {}

    def read(self) -> dict:
        """Return all results so far."""
        return stored_result(NAME) if self.write else self.kept

    def __call__(self, part: str, name: str, run: Callable[[], dict]) -> None:
        """Run and keep one result under `part` and `name`, unless it is there."""
        if name in self.read().get(part, {}):
            return
        start, result = time.perf_counter(), run()
        shown = {key: result[key] for key in result if key not in ("risk", "cells")}
        print(f"{part}, {name} ({time.perf_counter() - start:.0f} s): {shown}", flush=True)
        stored = self.read()  # again: another process may have added to it
        stored.setdefault(part, {})[name] = result
        self.kept = stored
        if self.write:
            write_result(NAME, stored)


def run_part(part: str, cells: Cells, options: argparse.Namespace, add: Adder) -> None:
    """Run one part, whatever of it is not there yet."""
    if part == "search":
        small = Recipe(size=options.search_size, epochs=min(options.epochs, Recipe().epochs))
        for name, change in CHANGES.items():
            add(part, name, partial(searched, small._replace(**change), cells))
        return
    run, word = (probe_run, "probe") if part == "probe" else (final_run, "fine-tuned")
    usual = {"random": SEEDS, "grouped": range(4) if part == "probe" else (0,)}
    for name in SPLITS if part == "probe" else [part]:
        for seed in options.seeds or usual[name]:
            call = partial(run, SPLITS[name], cells, options, seed)
            add(f"{name}, {word}", str(seed), lambda call=call: call(add.read()))


def main() -> None:
    """Run what is asked for and not yet done, print it, and store it if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--seeds", nargs="*", type=int)
    parser.add_argument("--every", type=int, default=1, help="use every n-th cell only")
    parser.add_argument("--size", type=int, default=224, help="pixels, of the final runs")
    parser.add_argument("--search-size", type=int, default=112)
    parser.add_argument("--epochs", type=int, default=6, help="of the final runs")
    parser.add_argument("--write", action="store_true", help="store the result file")
    options = parser.parse_args()
    cells, add = load_cells(options.every), Adder(options.write)
    for part in options.parts:
        run_part(part, cells, options, add)


if __name__ == "__main__":
    main()
