"""Choosing between networks by cross-validation: on one machine or, by one line, on many.

Every candidate is trained from scratch on the same folds with the same seeds. What is random in a
fold hangs on its own seed alone, so the report is the same however many workers made it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from tlbook import runtime
from tlbook.candidates import Candidate, Factory, SelectionError, inspect_candidates
from tlbook.folds import Fold, Settings, Store, run_folds
from tlbook.identity import dataset_digest, image_digests
from tlbook.isolation import alone
from tlbook.leaks import copies, find_duplicates
from tlbook.plots import plot_learning_curve
from tlbook.report import SelectionReport
from tlbook.resampling import make_splits, smaller
from tlbook.significance import PairedTest, paired_test
from tlbook.splits import targets_of

if TYPE_CHECKING:
    from tlbook.display import Figure

__all__ = [
    "Candidate",
    "Fold",
    "LearningCurve",
    "PairedTest",
    "SelectionError",
    "SelectionReport",
    "cross_validate",
    "find_duplicates",
    "learning_curve",
    "paired_test",
    "successive_halving",
]


def cross_validate(
    candidates: Mapping[str, Factory],
    dataset: Dataset,
    *,
    folds: int = 5,
    repeats: int = 1,
    epochs: int = 3,
    batch_size: int = 128,
    seed: int = 0,
    groups: Sequence[Hashable] | np.ndarray | Tensor | None = None,
    duplicates: str = "refuse",
    near_duplicates: int | None = None,
    train_size: int | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    optimizer: Callable | None = None,
    scheduler: Callable | None = None,
    device: str | None = None,
    precision: str = "auto",
    threads: int = 1,
    n_jobs: int | None = None,
    store: str | Path | None = None,
    progress: bool | None = None,
) -> SelectionReport:
    """Train every candidate from scratch on every fold, and report how well each does.

    A candidate's score on a fold is its validation accuracy after the last epoch: taking the best
    epoch would use the validation images twice. Everything that can be wrong with data or
    candidates is refused before the first step.

    Args:
        candidates: for each name a function without arguments that builds a new network. It is
            called anew for every fold, with that fold's seed.
        dataset: of pairs of an image `(C, H, W)` and a class; never the test data.
        folds: parts that take turns as validation data, with equal shares of every class.
        repeats: how often the dataset is divided anew.
        epochs: passes over the training folds.
        batch_size: images in a step.
        seed: of the folds and of everything random in them; any integer from 0 to 2**32 - 1.
        groups: one label for each item; items with the same label stay in one fold.
        duplicates: what happens if an image is in two folds: "refuse", keep copies "together" in
            one fold, or "allow" it with a warning.
        near_duplicates: also takes images for copies that look alike; see `find_duplicates`.
        train_size: images of each training fold to train on, with equal shares of every class;
            None takes all.
        augment: changes an image `(C, H, W)` at random; applied to training folds only.
        optimizer, scheduler: as in `fit`; functions, since each fold needs its own.
        device, precision: as in `fit`.
        threads: that each fold computes with. One is best where folds run side by side.
        n_jobs: folds that run at the same time, each in a process; -1 takes every core. None is
            one, or what `joblib.parallel_config` says: "dask" means all workers of a cluster.
        store: a folder in which every finished fold is kept. The same call goes on where a killed
            one stopped; a fold is used again only if candidate, data and settings are the same.
        progress: a progress bar; None shows one where somebody watches.

    Returns:
        The report. With the same versions and kind of processor it is the same to the last bit
        for any `n_jobs`, but for the seconds.

    Raises:
        DataError: fewer than `folds` images in a class, a leak, or data that cannot be sent.
        SelectionError: a candidate that cannot be built, or does not fit the data. A fold whose
            loss is not finite is reported as failed, and the others go on.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.eye(2).repeat(10, 1) + 0.1 * torch.rand(20, 2),
        ...                      torch.tensor([0, 1] * 10))
        >>> report = cross_validate({"linear": lambda: nn.Linear(2, 2)}, data, folds=2, epochs=1)
        >>> len(report.scores("linear")), report.best()
        (2, 'linear')
    """
    settings = Settings(
        epochs=_positive("epochs", epochs),
        batch_size=batch_size,
        optimizer=optimizer,
        scheduler=scheduler,
        augment=augment,
        device=device,
        precision=runtime.precision(precision, device).name,
        threads=threads,
    )
    with alone(seed=0, threads=1):
        images = image_digests(dataset)
        splits = make_splits(
            dataset,
            copies(dataset, images, near_duplicates),
            folds=folds,
            repeats=_positive("repeats", repeats),
            seed=seed,
            groups=groups,
            duplicates=duplicates,
        )
    if train_size is not None:
        splits = [smaller(split, train_size, targets_of(dataset).numpy()) for split in splits]
    found = inspect_candidates(candidates, dataset)
    done = run_folds(
        [(candidate, split) for split in splits for candidate in found],
        candidates,
        dataset,
        settings,
        store=Store(store, dataset_digest(dataset, images), settings),
        n_jobs=n_jobs,
        progress=progress,
    )
    return SelectionReport(found, done)


@dataclass(frozen=True)
class LearningCurve:
    """Reports by the number of training images.

    Attributes:
        reports: a `SelectionReport` for each size, the smallest first.
    """

    reports: dict[int, SelectionReport]

    def scores(self, name: str) -> dict[int, list[float]]:
        """Return the accuracies of a candidate's folds by size."""
        return {size: report.scores(name) for size, report in self.reports.items()}

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of all reports, each with its `size`."""
        return [
            {"size": size} | row for size, report in self.reports.items() for row in report.rows()
        ]

    def plot(self) -> Figure:
        """Plot accuracy against the number of training images, every fold a point."""
        names = [candidate.name for candidate in next(iter(self.reports.values())).candidates]
        return plot_learning_curve({name: self.scores(name) for name in names})


def learning_curve(
    candidates: Mapping[str, Factory], dataset: Dataset, sizes: Sequence[int], **settings: Any
) -> LearningCurve:
    """Cross-validate with fewer training images, to see what more of them would bring.

    The validation folds stay whole and the same, and the images of a size are among those of the
    next one. With the same epochs fewer images also mean fewer steps.

    Args:
        candidates, dataset: as for `cross_validate`.
        sizes: numbers of training images, the largest at most a training fold.
        **settings: all other arguments of `cross_validate`.

    Raises:
        DataError: a size that does not fit, and all that `cross_validate` refuses.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.rand(20, 2), torch.tensor([0, 1] * 10))
        >>> nets = {"linear": lambda: nn.Linear(2, 2)}
        >>> curve = learning_curve(nets, data, [4, 8], folds=2, epochs=1)
        >>> [fold.train_examples for fold in curve.reports[4].folds]
        [4, 4]
    """
    return LearningCurve(
        {
            size: cross_validate(candidates, dataset, train_size=size, **settings)
            for size in sorted(set(sizes))
        }
    )


def successive_halving(
    candidates: Mapping[str, Factory],
    dataset: Dataset,
    *,
    epochs: int = 9,
    factor: int = 3,
    **settings: Any,
) -> SelectionReport:
    """Give every candidate a few epochs, and only the better ones more.

    In each round the best of `factor` candidates goes on with `factor` times the epochs, from
    scratch. scikit-learn's HalvingGridSearchCV plans the rounds and decides who goes on. A
    candidate that starts slowly and would have won is lost: that is what the time is saved with.

    Args:
        candidates, dataset: as for `cross_validate`.
        epochs: of the last round.
        factor: how many candidates there are for each that goes on.
        **settings: all other arguments of `cross_validate`.

    Returns:
        The report, with the folds of each candidate's last round; `epochs` in its rows says how
        far a candidate came.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.rand(20, 2), torch.tensor([0, 1] * 10))
        >>> nets = {f"net {number}": lambda: nn.Linear(2, 2) for number in (1, 2, 3)}
        >>> report = successive_halving(nets, data, epochs=3, folds=2)
        >>> sorted(row["epochs"] for row in report.rows())
        [1, 1, 3]
    """
    from tlbook.halving import halve  # brings scikit-learn, which takes its time

    inspect_candidates(candidates, dataset)
    reports: dict[str, SelectionReport] = {}

    def accuracy(name: str, rounds_epochs: int) -> float:
        one = {name: candidates[name]}
        reports[name] = cross_validate(one, dataset, epochs=rounds_epochs, **settings)
        return reports[name].rows()[0]["accuracy"]

    halve(list(candidates), accuracy, epochs=_positive("epochs", epochs), factor=factor)
    found = [reports[name].candidates[0] for name in candidates]
    return SelectionReport(found, [fold for name in candidates for fold in reports[name].folds])


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise SelectionError(f"{name} is {value}: expected 1 or more")
    return value
