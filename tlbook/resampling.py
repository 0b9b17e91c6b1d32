"""The folds of a cross-validation, checked before anything runs on them.

Every class is in every fold, items of one group stay together, and no image is on both sides.
"""

import warnings
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from tlbook.folders import DataError
from tlbook.leaks import joined
from tlbook.splits import class_counts, targets_of

DUPLICATES = ("refuse", "together", "allow")


@dataclass(frozen=True, eq=False)
class Split:
    """One fold: what trains, what validates, and the seed of everything random in it.

    Attributes:
        repeat: number of the repetition, from 1.
        fold: number of the fold in it, from 1.
        train: items to train on, int32 `(n,)`.
        val: items to validate on, int32 `(m,)`.
        seed: the same for every candidate, so that they can be compared in pairs.
    """

    repeat: int
    fold: int
    train: np.ndarray
    val: np.ndarray
    seed: int


def make_splits(
    dataset: Dataset,
    copies: np.ndarray,
    *,
    folds: int,
    repeats: int,
    seed: int,
    groups: Sequence[Hashable] | np.ndarray | Tensor | None,
    duplicates: str,
) -> list[Split]:
    """Return the folds of every repetition.

    Args:
        dataset: with labels, as `targets_of` reads them.
        copies: a number for each item `(N,)`, the same for copies of one image.
        folds: parts in which the items are divided.
        repeats: how often they are divided anew.
        seed: any integer from 0 to 2**32 - 1.
        groups: a label for each item, or None.
        duplicates: "refuse" copies of one image in two folds, keep them "together" in one, or
            "allow" them with a warning.

    Raises:
        DataError: if there are not `folds` images of every class and `folds` groups, or an image
            has a copy in another fold.
    """
    if duplicates not in DUPLICATES:
        raise DataError(f'duplicates is {duplicates!r}: expected "refuse", "together" or "allow"')
    _refuse_few(dataset, folds)
    if groups is not None:
        groups = joined(_checked_groups(groups, len(dataset)))
    if duplicates == "together":
        groups = copies if groups is None else joined(groups, copies)
    if groups is not None and (found := len(np.unique(groups))) < folds:
        raise DataError(
            f"{found} groups cannot fill {folds} folds, because a group is never divided: ask for "
            "fewer folds"
        )
    targets = targets_of(dataset).numpy()
    splits = [
        Split(
            repeat=number // folds + 1,
            fold=number % folds + 1,
            train=train.astype(np.int32),
            val=val.astype(np.int32),
            seed=_seed(seed, number // folds, number % folds),
        )
        for number, (train, val) in enumerate(_divide(targets, groups, folds, repeats, seed))
    ]
    _look_for_leaks(splits, copies, refuse=duplicates != "allow")
    return splits


def smaller(split: Split, size: int, targets: np.ndarray) -> Split:
    """Return a fold with fewer training items and equal shares of every class.

    The items of a size are among those of every larger one.

    Raises:
        DataError: if the fold has fewer items, or a class would be left without any.
    """
    random = np.random.default_rng(split.seed)
    places = np.empty(len(split.train))
    for label in np.unique(targets[split.train]):
        items = np.flatnonzero(targets[split.train] == label)
        # Evenly spaced from 0 to 1, so that every beginning has its share of the class.
        places[random.permutation(items)] = (np.arange(len(items)) + 0.5) / len(items)
    drawn = split.train[np.argsort(places, kind="stable")[:size]]
    if len(drawn) < size or set(targets[drawn]) != set(targets[split.train]):
        raise DataError(
            f"a training fold of {size} images was asked for: it can have at most "
            f"{len(split.train)}, and needs enough to have some of every class"
        )
    return replace(split, train=drawn)


def _divide(
    targets: np.ndarray, groups: np.ndarray | None, folds: int, repeats: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import RepeatedStratifiedKFold, StratifiedGroupKFold

    if groups is None:
        splitter = RepeatedStratifiedKFold(n_splits=folds, n_repeats=repeats, random_state=seed)
        yield from splitter.split(targets, targets)
        return
    for repeat in range(repeats):
        random_state = _seed(seed, repeat)
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=random_state)
        yield from splitter.split(targets, targets, groups)


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _refuse_few(dataset: Dataset, folds: int) -> None:
    if folds < 2:
        raise DataError(f"folds is {folds}: expected 2 or more, one to validate on each time")
    few = {name: count for name, count in class_counts(dataset).items() if 0 < count < folds}
    if few:
        listed = ", ".join(f"{count} of {name!r}" for name, count in few.items())
        raise DataError(
            f"{folds} folds need {folds} images of every class, and there are {listed}: ask for "
            "fewer folds, or leave these classes out"
        )


def _checked_groups(groups: Sequence[Hashable] | np.ndarray | Tensor, total: int) -> list:
    labels = groups.tolist() if hasattr(groups, "tolist") else list(groups)
    missing = [item for item, label in enumerate(labels) if label is None or label != label]
    if len(labels) != total or missing:
        found = f"item {missing[0]} has none" if missing else f"there are {len(labels)}"
        raise DataError(f"groups: expected one label for each of {total} items, but {found}")
    return [str(label) for label in labels]


def _look_for_leaks(splits: Sequence[Split], copies: np.ndarray, *, refuse: bool) -> None:
    for split in splits:
        leaked = split.val[np.isin(copies[split.val], copies[split.train])]
        if len(leaked) == 0:
            continue
        twin = split.train[copies[split.train] == copies[leaked[0]]][0]
        found = (
            f"{len(leaked)} of {len(split.val)} validation images of fold {split.fold} have a copy "
            f"in its training data, such as items {leaked[0]} and {twin}"
        )
        if not refuse:
            warnings.warn(f"{found}: the accuracy comes out too high", stacklevel=4)
            return
        raise DataError(
            f'{found}. Pass duplicates="together" to keep copies in one fold, or remove them '
            "(tlbook.find_duplicates lists them)"
        )
