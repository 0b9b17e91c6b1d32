from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from tlbook.data import DataError
from tlbook.resampling import make_splits, smaller

TARGETS = torch.tensor([0] * 30 + [1] * 20 + [2] * 10)
DATA = TensorDataset(torch.zeros(60, 1), TARGETS)


def splits(copies=None, **changes):
    options = {"folds": 5, "repeats": 1, "seed": 0, "groups": None, "duplicates": "refuse"}
    copies = np.arange(60) if copies is None else copies
    return make_splits(DATA, copies, **options | changes)


def test_every_item_validates_once_in_each_repetition_and_classes_are_even():
    found = splits(repeats=3)
    assert [(split.repeat, split.fold) for split in found][4:6] == [(1, 5), (2, 1)]
    for repeat in (1, 2, 3):
        items = np.concatenate([split.val for split in found if split.repeat == repeat])
        assert sorted(items) == list(range(60))
    for split in found:
        assert not set(split.train) & set(split.val)
        assert np.bincount(TARGETS[split.val]).tolist() == [6, 4, 2]
    assert len({split.seed for split in found}) == 15


def test_more_repetitions_begin_with_the_same_ones():
    for few, many in zip(splits(), splits(repeats=2), strict=False):
        assert few.val.tolist() == many.val.tolist() and few.seed == many.seed


def test_groups_and_copies_stay_on_one_side():
    groups = [f"patient {item % 12}" for item in range(60)]
    copies = np.arange(60)
    copies[7] = copies[20]  # ties patient 7 to patient 8
    for split in splits(copies, groups=groups, duplicates="together", repeats=2):
        train, val = ({item % 12 for item in items} for items in (split.train, split.val))
        assert not train & val
        assert (7 in val) == (8 in val)
    with pytest.raises(DataError, match="have a copy in its training data, such as items"):
        splits(copies, groups=groups)


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="3 groups cannot fill 5 folds"):
        splits(groups=[item % 3 for item in range(60)])
    with pytest.raises(DataError, match="expected one label for each of 60 items, but there are 2"):
        splits(groups=[1, 2])
    with pytest.raises(DataError, match="item 4 has none"):
        splits(groups=[None if item == 4 else item for item in range(60)])
    with pytest.raises(DataError, match=r"11 folds need 11 images of every class.*10 of '2'"):
        splits(folds=11)
    with pytest.raises(DataError, match="'perhaps'"):
        splits(duplicates="perhaps")


def test_smaller_folds_lie_in_larger_ones_with_even_classes():
    split = splits()[0]
    targets = TARGETS.numpy()
    parts = [smaller(split, size, targets) for size in (6, 12, 24, 48)]
    assert [np.bincount(targets[part.train]).tolist() for part in parts[1:]] == [
        [6, 4, 2], [12, 8, 4], [24, 16, 8],
    ]  # fmt: skip
    for small, large in pairwise(parts):
        assert set(small.train) < set(large.train)
        assert small.val is large.val
    for size in (2, 49):
        with pytest.raises(DataError, match=f"training fold of {size} images"):
            smaller(split, size, targets)
