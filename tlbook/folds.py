"""Folds that run anywhere, in any order, and are never run twice.

joblib decides where: in this process, in others, or on a cluster. Data and candidates travel as
flat arrays, because joblib maps large arrays into memory once a machine, and Dask moves an array
to each worker once. The caller alone writes finished folds to the disk.
"""

import json
import pickle
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import delayed, wrap_non_picklable_objects
from torch.utils.data import Dataset
from tqdm import tqdm

from tlbook.batches import BatchError
from tlbook.candidates import Candidate, Factory
from tlbook.cluster import finished, handed_over
from tlbook.files import whole_file
from tlbook.fingerprints import digest
from tlbook.folders import DataError
from tlbook.history import Epoch, History
from tlbook.identity import describe
from tlbook.isolation import alone
from tlbook.loop import TrainingError
from tlbook.resampling import Split
from tlbook.runtime import is_watched
from tlbook.splits import LabelledSubset
from tlbook.training import fit

FORMAT = 1  # of the stored folds; a change in what a fold does makes the old ones stale


@dataclass(frozen=True)
class Settings:
    """How every fold is trained; the arguments are those of `fit`.

    Attributes:
        augment: what an image of the training folds becomes, anew in each epoch.
        threads: that a fold computes with.
    """

    epochs: int
    batch_size: int
    optimizer: Callable | None
    scheduler: Callable | None
    augment: Callable | None
    device: str | None
    precision: str
    threads: int


@dataclass(frozen=True)
class Fold:
    """What one fold of one candidate measured.

    Attributes:
        candidate: its name.
        repeat, fold: numbers from 1.
        train_examples, val_examples: how many there are.
        rows: the measurements of each epoch.
        seconds: wall-clock time of building, training and validating.
        error: why it failed; None where it did not.
    """

    candidate: str
    repeat: int
    fold: int
    train_examples: int
    val_examples: int
    rows: list[dict[str, Any]] = field(repr=False)
    seconds: float
    error: str | None = None

    @property
    def accuracy(self) -> float:
        """Validation accuracy after the last epoch, in [0, 1]; NaN where the fold failed."""
        return float("nan") if self.error else self.rows[-1]["val_accuracy"]

    @property
    def train_accuracy(self) -> float:
        """Training accuracy during the last epoch, in [0, 1]; NaN where the fold failed."""
        return float("nan") if self.error else self.rows[-1]["train_accuracy"]

    @property
    def history(self) -> History:
        """The epochs, as `fit` returns them, without weights."""
        return History([Epoch(**row) for row in self.rows])


class Augmented(Dataset):
    """A dataset whose images are changed at random each time they are asked for.

    Example:
        >>> plain = [(torch.zeros(1, 2, 2), 3)]
        >>> Augmented(plain, lambda image: image + 1)[0][0].sum()
        tensor(4.)
    """

    def __init__(self, dataset: Dataset, augment: Callable) -> None:
        self.dataset, self.augment = dataset, augment

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, target = self.dataset[index]
        return self.augment(image), target


class Store:
    """Finished folds in a folder, one JSON file each, named by a hash of all that decides them.

    Args:
        folder: made if need be; None keeps nothing.
        data: hash of the dataset.
        settings: how folds are trained.
    """

    def __init__(self, folder: str | Path | None, data: str, settings: Settings) -> None:
        self.folder = None if folder is None else Path(folder)
        self._shared = {
            "format": FORMAT,
            "torch": torch.__version__,
            "data": data,
            "settings": {name: describe(value) for name, value in vars(settings).items()},
        }

    def get(self, candidate: Candidate, split: Split) -> Fold | None:
        """Return a finished fold, or None; a damaged file is named and its fold runs again."""
        path = self._path(candidate, split)
        if path is None or not path.is_file():
            return None
        try:
            return Fold(**json.loads(path.read_text(encoding="utf-8"))["fold"])
        except (ValueError, KeyError, TypeError) as error:
            warnings.warn(f"{path} is damaged ({error}): its fold runs again", stacklevel=4)
            return None

    def put(self, candidate: Candidate, split: Split, fold: Fold) -> None:
        """Write a finished fold, complete or not at all."""
        if (path := self._path(candidate, split)) is not None:
            content = {"key": self._key(candidate, split), "fold": asdict(fold)}
            with whole_file(path) as part:
                part.write_text(json.dumps(content, indent=1), encoding="utf-8")

    def _path(self, candidate: Candidate, split: Split) -> Path | None:
        name = f"{digest(self._key(candidate, split))}.json"
        return None if self.folder is None else self.folder / name

    def _key(self, candidate: Candidate, split: Split) -> dict[str, Any]:
        return {
            **self._shared,
            "candidate": [candidate.name, candidate.digest],
            "items": digest(split.train, split.val),
            "seed": split.seed,
        }


def run_folds(
    work: Sequence[tuple[Candidate, Split]],
    factories: Mapping[str, Factory],
    dataset: Dataset,
    settings: Settings,
    *,
    store: Store,
    n_jobs: int | None,
    progress: bool | None,
) -> list[Fold]:
    """Return a fold for each pair of candidate and split, in their order, run only where missing.

    Raises:
        DataError: if dataset, candidates or settings cannot be sent to another process.
    """
    done = {number: store.get(*pair) for number, pair in enumerate(work)}
    left = {number: work[number] for number, fold in done.items() if fold is None}
    tasks = _tasks(left, factories, dataset, settings) if left else []
    with _bar(len(work), len(work) - len(left), progress) as bar:
        # One task, one fold: what is finished comes back at once and is kept.
        for number, measured in finished(tasks, n_jobs) if left else ():
            candidate, split = work[number]
            sizes = len(split.train), len(split.val)
            done[number] = Fold(candidate.name, split.repeat, split.fold, *sizes, **measured)
            store.put(candidate, split, done[number])
            bar.update()
    return [done[number] for number in range(len(work))]


def _tasks(
    left: Mapping[int, tuple[Candidate, Split]],
    factories: Mapping[str, Factory],
    dataset: Dataset,
    settings: Settings,
) -> list:
    """Return a task for each fold that is left; the arrays that they share are handed over once."""
    data = handed_over(_packed(dataset))
    recipes = {name: handed_over(_packed((make, settings))) for name, make in factories.items()}
    items = {
        split: (handed_over(split.train), handed_over(split.val))
        for split in {split for _, split in left.values()}
    }
    return [
        delayed(_run)(number, recipes[candidate.name], data, *items[split], split.seed)
        for number, (candidate, split) in left.items()
    ]


def _run(
    number: int, recipe: np.ndarray, data: np.ndarray, train: np.ndarray, val: np.ndarray, seed: int
) -> tuple[int, dict[str, Any]]:
    """Train a fold, wherever this runs; return its number and what it measured."""
    factory, settings = pickle.loads(recipe)
    dataset = pickle.loads(data)
    rows, problem = [], None
    with alone(seed, settings.threads):
        start = time.perf_counter()
        try:
            rows = _train(factory, dataset, train, val, seed, settings).rows()
            if not np.isfinite(rows[-1]["val_loss"]):
                problem = f"the validation loss is {rows[-1]['val_loss']} after the last epoch"
        except (TrainingError, BatchError) as error:
            problem = str(error)
        seconds = time.perf_counter() - start
    return number, {"rows": rows, "seconds": seconds, "error": problem}


def _train(
    factory: Factory,
    dataset: Dataset,
    train: np.ndarray,
    val: np.ndarray,
    seed: int,
    settings: Settings,
) -> History:
    training = LabelledSubset(dataset, train.tolist())
    if settings.augment is not None:
        training = Augmented(training, settings.augment)
    history = fit(
        factory(),
        training,
        LabelledSubset(dataset, val.tolist()),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        optimizer=settings.optimizer,
        scheduler=settings.scheduler,
        device=settings.device,
        precision=settings.precision,
        progress=False,
        seed=seed,
    )
    if history.interrupted:
        raise KeyboardInterrupt  # half a fold is none
    return history


def _packed(thing: Any) -> np.ndarray:
    """Pickle a thing, also with functions of a notebook, into an array of bytes."""
    try:
        packed = pickle.dumps(wrap_non_picklable_objects(thing, keep_wrapper=False))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        kind = "the dataset" if isinstance(thing, Dataset) else "a candidate or a setting"
        raise DataError(
            f"{kind} cannot be sent to another process: {error}. Let it open files only when "
            "they are read, and keep locks and generators out of it"
        ) from error
    return np.frombuffer(packed, dtype=np.uint8)


def _bar(total: int, done: int, progress: bool | None) -> tqdm:
    return tqdm(total=total, initial=done, unit=" folds", disable=not is_watched(progress))
