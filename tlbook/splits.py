"""Datasets divided and counted: splits, small subsets and loaders.

Every draw takes a seed and keeps the class names, so that a split is the same wherever and
however often it is made, and can be made again for another transform.
"""

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from tlbook.folders import DataError


class LabelledSubset(Subset):
    """Part of a dataset that still knows its classes, targets and source.

    Example:
        >>> whole = TensorDataset(torch.zeros(4, 1), torch.tensor([0, 1, 1, 0]))
        >>> LabelledSubset(whole, [1, 3]).targets
        tensor([1, 0])
    """

    @property
    def classes(self) -> list[str]:
        """Names of all classes of the whole dataset, whether or not they occur here."""
        return class_names(self.dataset)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Name to label."""
        return {name: label for label, name in enumerate(self.classes)}

    @property
    def targets(self) -> Tensor:
        """Int64 tensor (N,) of labels."""
        return targets_of(self.dataset)[torch.as_tensor(self.indices, dtype=torch.int64)]

    @property
    def source(self) -> str:
        """Where the whole dataset came from."""
        return getattr(self.dataset, "source", type(self.dataset).__name__)


def targets_of(dataset: Dataset) -> Tensor:
    """Return the labels of a dataset as an int64 tensor (N,), without reading its images.

    Args:
        dataset: one with `targets` (this package's and torchvision's), a `TensorDataset` of
            images and labels, or a `Subset` of such a dataset.

    Raises:
        DataError: if it is none of these.

    Example:
        >>> targets_of(TensorDataset(torch.zeros(2, 1), torch.tensor([1, 0])))
        tensor([1, 0])
    """
    if isinstance(dataset, Subset):
        return targets_of(dataset.dataset)[torch.as_tensor(dataset.indices, dtype=torch.int64)]
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[-1]
    if not hasattr(dataset, "targets"):
        raise DataError(
            f"{type(dataset).__name__} has no `targets`: expected a dataset that lists its labels; "
            "set the attribute to a list with one whole number per item"
        )
    return torch.as_tensor(dataset.targets, dtype=torch.int64)


def class_names(dataset: Dataset) -> list[str]:
    """Return the names of a dataset's classes, or the labels as text where there are no names.

    Example:
        >>> class_names(TensorDataset(torch.zeros(2, 1), torch.tensor([1, 0])))
        ['0', '1']
    """
    names = _given_names(dataset)
    if names is None:
        return [str(label) for label in range(int(targets_of(dataset).max()) + 1)]
    return names


def _given_names(dataset: Dataset) -> list[str] | None:
    if isinstance(dataset, Subset):
        return _given_names(dataset.dataset)
    return list(dataset.classes) if hasattr(dataset, "classes") else None


def class_counts(dataset: Dataset) -> dict[str, int]:
    """Return how many items each class has, in the order of the labels.

    Example:
        >>> class_counts(TensorDataset(torch.zeros(3, 1), torch.tensor([1, 0, 1])))
        {'0': 1, '1': 2}
    """
    names = class_names(dataset)
    counts = torch.bincount(targets_of(dataset), minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))


def stratified_split(
    dataset: Dataset, parts: Sequence[float] | Sequence[int], *, seed: int
) -> tuple[LabelledSubset, ...]:
    """Divide a dataset at random into parts with equal shares of every class.

    Labels, parts and seed alone decide: for parts with different transforms, load the dataset
    once with each and split both alike. Classes without any item are passed over.

    Args:
        dataset: as in `targets_of`.
        parts: fractions that add up to 1 or less, or numbers of items; the rest is left out.
        seed: any integer from 0 to 2**32 - 1.

    Returns:
        One disjoint subset per part, each in random order.

    Raises:
        DataError: if the parts ask for too much, or a class has too few items for every part.

    Example:
        >>> whole = TensorDataset(torch.zeros(10, 1), torch.tensor([0, 1] * 5))
        >>> train, val = stratified_split(whole, (0.8, 0.2), seed=0)
        >>> class_counts(train), class_counts(val)
        ({'0': 4, '1': 4}, {'0': 1, '1': 1})
    """
    from sklearn.utils import check_random_state

    sizes = part_sizes(len(dataset), parts)
    targets = targets_of(dataset).numpy()
    random = check_random_state(seed)
    rest, subsets = np.arange(len(dataset)), []
    try:
        for size in sizes:
            drawn, rest = _draw(rest, targets, size, random)
            subsets.append(LabelledSubset(dataset, drawn.tolist()))
    except ValueError as error:
        raise _too_few(dataset, sizes) from error
    if any(len(part.targets.unique()) < len(np.unique(targets)) for part in subsets):
        raise _too_few(dataset, sizes)
    return tuple(subsets)


def few_shot_subset(dataset: Dataset, per_class: int, *, seed: int) -> LabelledSubset:
    """Return the same number of items of every class, drawn at random.

    With one seed the subsets are nested: the five drawn of each class are among the ten.

    Args:
        dataset: as in `targets_of`.
        per_class: items per class.
        seed: any non-negative integer.

    Raises:
        DataError: if a class has fewer items; all such classes are listed. Classes without any
            item are passed over.

    Example:
        >>> whole = TensorDataset(torch.zeros(10, 1), torch.tensor([0, 1] * 5))
        >>> class_counts(few_shot_subset(whole, 3, seed=0))
        {'0': 3, '1': 3}
    """
    if per_class < 1:
        raise DataError(f"per_class is {per_class}, expected 1 or more")
    few = {name: n for name, n in class_counts(dataset).items() if 0 < n < per_class}
    if few:
        raise DataError(
            f"{per_class} items per class were asked for, but there are {_listed(few)}: "
            "ask for fewer, or leave these classes out"
        )
    targets = targets_of(dataset).numpy()
    random = np.random.default_rng(seed)
    drawn = [
        random.permutation(np.flatnonzero(targets == label))[:per_class]
        for label in np.unique(targets)
    ]
    # Turn by turn through the classes, so that the first items are not all of one class.
    return LabelledSubset(dataset, np.stack(drawn, axis=1).ravel().tolist())


def make_loaders(
    train: Dataset, val: Dataset, *, batch_size: int = 32, seed: int = 0, num_workers: int = 0
) -> tuple[DataLoader, DataLoader]:
    """Return a shuffled training loader and an ordered validation loader, both seeded.

    The seed fixes the order of every epoch and, through PyTorch, what workers draw from
    `random`, NumPy and torch. A last training batch of one item is dropped with a warning, a
    different item each epoch, because BatchNorm cannot normalise it.

    Args:
        train: training data.
        val: validation data of the same classes.
        batch_size: items per batch, 2 or more.
        seed: any integer.
        num_workers: processes that load; 0 loads in this one.

    Raises:
        DataError: if the classes differ, a dataset is empty, or every batch would be of one.

    Example:
        >>> data = TensorDataset(torch.zeros(10, 1), torch.tensor([0, 1] * 5))
        >>> train_loader, val_loader = make_loaders(data, data, batch_size=4)
        >>> [len(labels) for _, labels in val_loader]
        [4, 4, 2]
    """
    _check_pair(train, val, batch_size)
    last_of_one = len(train) % batch_size == 1
    if last_of_one:
        warnings.warn("the last training batch would hold one item: it is dropped", stacklevel=2)
    shared = {"num_workers": num_workers, "pin_memory": torch.cuda.is_available()}
    # The validation loader has a generator too, or it would move the global random state.
    first, second = (torch.Generator().manual_seed(seed) for _ in range(2))
    return (
        DataLoader(
            train, batch_size, shuffle=True, drop_last=last_of_one, generator=first, **shared
        ),
        DataLoader(val, batch_size, generator=second, **shared),
    )


def part_sizes(total: int, parts: Sequence[float] | Sequence[int]) -> list[int]:
    """Return the number of items of each part, from fractions or from numbers.

    Args:
        total: items there are.
        parts: fractions that add up to 1 or less, or numbers of items.

    Raises:
        DataError: if they are neither, a part would be empty, or they ask for too much.

    Example:
        >>> part_sizes(10, (0.8, 0.2)), part_sizes(10, (5, 3))
        ([8, 2], [5, 3])
    """
    if parts and all(isinstance(part, int) for part in parts):
        sizes = list(parts)
    elif parts and all(isinstance(part, float) for part in parts) and sum(parts) <= 1 + 1e-9:
        # Rounding the sums instead of each part leaves no item over when they add up to 1.
        sizes = np.diff(np.rint(np.cumsum([0, *parts]) * total).astype(int)).tolist()
    else:
        raise DataError(
            f"parts are {tuple(parts)}: expected fractions such as (0.8, 0.2) that add up to 1 "
            "or less, or whole numbers of items such as (1000, 200)"
        )
    if min(sizes) < 1 or sum(sizes) > total:
        raise DataError(
            f"parts {tuple(parts)} mean {sizes} of {total} items: expected at least one item in "
            "each part and no more than there are"
        )
    return sizes


def _draw(
    indices: np.ndarray, targets: np.ndarray, size: int, random: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Return `size` of the indices and the rest."""
    from sklearn.model_selection import train_test_split

    if size == len(indices):
        return random.permutation(indices), indices[:0]
    labels = targets[indices]
    return tuple(train_test_split(indices, train_size=size, random_state=random, stratify=labels))


def _too_few(dataset: Dataset, sizes: list[int]) -> DataError:
    """Return the error that names the classes which cannot be in every part."""
    needed = max(len(sizes), math.ceil(len(dataset) / min(sizes)))
    counts = {name: count for name, count in class_counts(dataset).items() if count}
    rarest = min(counts, key=counts.get)
    few = {name: n for name, n in counts.items() if n < needed} or {rarest: counts[rarest]}
    return DataError(
        f"not every class can be in each part of {sizes} items, which takes {needed} items of a "
        f"class: there are {_listed(few)}; make the parts larger or leave these classes out"
    )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} of {name!r}" for name, count in counts.items())


def _check_pair(train: Dataset, val: Dataset, batch_size: int) -> None:
    """Refuse datasets that cannot be trained and validated together."""
    names, val_names = _given_names(train), _given_names(val)
    if names and val_names and names != val_names:
        raise DataError(
            f"the training data has the classes {names}, the validation data {val_names}: "
            "expected the same names in the same order; check the folders"
        )
    if len(val) == 0 or min(len(train), batch_size) < 2:
        raise DataError(
            f"{len(train)} training and {len(val)} validation items in batches of {batch_size}: "
            "expected batches of 2 or more, because BatchNorm cannot normalise a single item"
        )
