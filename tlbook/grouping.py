"""Datasets divided by whole groups, so that no patient, module or video is in two parts.

Images of one group resemble each other. A model that has seen some of them scores too well on
the others, and no accuracy shows it.
"""

import warnings
from collections.abc import Hashable, Sequence

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from tlbook.folders import DataError
from tlbook.splits import LabelledSubset, class_names, part_sizes, targets_of


def grouped_split(
    dataset: Dataset,
    parts: Sequence[float] | Sequence[int],
    groups: Sequence[Hashable] | np.ndarray | Tensor,
    *,
    seed: int,
) -> tuple[LabelledSubset, ...]:
    """Divide a dataset at random into parts, where items of one group stay together.

    Every class is shared out as evenly as whole groups allow, and the sizes of the parts are
    as near to those asked for. Labels, groups, parts and seed alone decide; what the groups
    are called does not matter. Large groups find their part first, so that the seed chooses
    among groups of about the same size.

    Args:
        dataset: as for `stratified_split`.
        parts: fractions that add up to 1 or less, or numbers of items; the rest is left out.
        groups: one label for each item, such as the patient's number.
        seed: any integer from 0 to 2**32 - 1.

    Returns:
        One disjoint subset per part, each in random order, none of them empty. A warning names
        the classes that are not in every part, such as one with fewer groups than parts.

    Raises:
        DataError: if there are not as many labels as items, a label is missing, there are
            fewer groups than parts, or the parts ask for too much.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> whole = TensorDataset(torch.zeros(8, 1), torch.tensor([0, 1] * 4))
        >>> patients = ["ann", "ann", "bob", "bob", "cy", "cy", "dee", "dee"]
        >>> train, val = grouped_split(whole, (0.75, 0.25), patients, seed=0)
        >>> len(train), val.targets.sort().values
        (6, tensor([0, 1]))
        >>> len({patients[i] for i in val.indices})
        1
    """
    from sklearn.utils import check_random_state

    sizes = part_sizes(len(dataset), parts)
    numbers = _group_numbers(groups, len(dataset), len(sizes))
    targets = targets_of(dataset).numpy()
    random = check_random_state(seed)
    part_of = _share_out(_count(numbers, targets), np.array(sizes), random)[numbers]
    drawn = [random.permutation(np.flatnonzero(part_of == part)) for part in range(len(sizes))]
    subsets = tuple(LabelledSubset(dataset, indices.tolist()) for indices in drawn)
    _warn_of_missing(dataset, subsets)
    return subsets


def _group_numbers(groups: Sequence | np.ndarray | Tensor, total: int, parts: int) -> np.ndarray:
    """Return the number (N,) of each item's group, counted in order of appearance."""
    # An element of a tensor equals no other as a key.
    labels = groups.tolist() if hasattr(groups, "tolist") else list(groups)
    if len(labels) != total:
        raise DataError(
            f"{len(labels)} group labels for {total} items: expected one for each item, in order"
        )
    missing = [i for i, label in enumerate(labels) if label is None or label != label]
    if missing:
        raise DataError(
            f"{len(missing)} items have no group label, the first being item {missing[0]}: "
            "give each a label, its own if it belongs to no group"
        )
    number: dict[Hashable, int] = {}
    numbers = np.array([number.setdefault(label, len(number)) for label in labels])
    if len(number) < parts:
        raise DataError(
            f"{len(number)} groups cannot fill {parts} parts, because a group is never divided: "
            "ask for fewer parts, or use stratified_split if the items are independent"
        )
    return numbers


def _count(numbers: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the items of each group per class and, in a last column, of all classes."""
    _, labels = np.unique(targets, return_inverse=True)
    counts = np.zeros((numbers.max() + 1, labels.max() + 2), dtype=int)
    np.add.at(counts, (numbers, labels), 1)
    counts[:, -1] = counts.sum(axis=1)
    return counts


def _share_out(counts: np.ndarray, sizes: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Return the part of each group; groups that are left out get the number after the last.

    scikit-learn's StratifiedGroupKFold goes about it in the same way but knows only parts of
    equal size.
    """
    totals = counts.sum(axis=0)
    shares = np.append(sizes, totals[-1] - sizes.sum())[:, None] / totals[-1]
    shares = shares[shares[:, 0] > 0]
    filled = np.zeros((len(shares), len(totals)))
    to_come = (counts > 0).sum(axis=0)
    part_of = np.empty(len(counts), dtype=int)
    for group in _large_first(counts, random):
        held = counts[group] > 0
        lacking = filled[: len(sizes)] == 0
        # The last groups with a class go where the class, or any item at all, is lacking.
        urgent = held & (to_come <= lacking.sum(axis=0))
        claims = np.zeros(len(shares), dtype=int)
        claims[: len(sizes)] = lacking[:, urgent].sum(axis=1)
        errors = _change_of_error(filled, counts[group] / totals, shares)
        errors[claims < claims.max()] = np.inf
        part_of[group] = errors.argmin()
        filled[part_of[group]] += counts[group] / totals
        to_come -= held
    return part_of


def _large_first(counts: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Return the groups in the order in which they find their part."""
    shuffled = random.permutation(len(counts))
    # Sorting by the exact size would leave nothing to chance where every size is another.
    magnitude = np.log2(counts[shuffled, -1]).astype(int)
    return shuffled[np.argsort(-magnitude, kind="stable")]


def _change_of_error(filled: np.ndarray, group: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return by how much a group would raise each part's squared error, relative to its size."""
    error = (filled + group - shares) ** 2 - (filled - shares) ** 2
    return (error / shares).sum(axis=1)


def _warn_of_missing(dataset: Dataset, subsets: tuple[LabelledSubset, ...]) -> None:
    present = set(targets_of(dataset).tolist())
    everywhere = present.intersection(*(part.targets.tolist() for part in subsets))
    names = [class_names(dataset)[label] for label in sorted(present - everywhere)]
    if names:
        warnings.warn(
            f"not in every part, because whole groups did not allow it: {', '.join(names)}",
            stacklevel=3,
        )
