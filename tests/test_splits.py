"""Splits, subsets, counts and loaders: seeded, stratified, and refused where they cannot be."""

import pickle
import random
import warnings

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedGroupKFold
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from tlbook.folders import DataError
from tlbook.grey import TensorImages
from tlbook.grouping import grouped_split
from tlbook.splits import (
    class_counts,
    class_names,
    few_shot_subset,
    make_loaders,
    stratified_split,
    targets_of,
)


def named(targets, classes) -> TensorImages:
    targets = torch.as_tensor(targets)
    images = torch.arange(len(targets), dtype=torch.uint8).reshape(-1, 1, 1).expand(-1, 2, 2)
    return TensorImages(images, targets, classes=list(classes), source="made here")


@pytest.fixture
def pets() -> TensorImages:
    """60 cats, 30 dogs and 10 fish, in no order."""
    targets = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    return named(targets[torch.randperm(100, generator=torch.Generator().manual_seed(0))], "cdf")


def global_state() -> tuple:
    numpy_state = np.random.get_state()[1].tolist()  # noqa: NPY002 - the global one is meant
    return torch.get_rng_state().tolist(), numpy_state, random.getstate()


# --- stratified_split --------------------------------------------------------------------------


def test_shares_are_equal_in_every_part(pets):
    train, val, test = stratified_split(pets, (0.6, 0.2, 0.2), seed=1)
    assert class_counts(train) == {"c": 36, "d": 18, "f": 6}
    assert class_counts(val) == class_counts(test) == {"c": 12, "d": 6, "f": 2}
    assert sorted([*train.indices, *val.indices, *test.indices]) == list(range(100))


def test_sizes_are_exact_and_the_rest_is_left_out(pets):
    parts = stratified_split(pets, (33, 20), seed=1)
    assert [len(part) for part in parts] == [33, 20]
    assert not set(parts[0].indices) & set(parts[1].indices)
    parts = stratified_split(pets, (0.35, 0.35), seed=1)
    assert [len(part) for part in parts] == [35, 35]


@pytest.mark.parametrize("total", [10, 33, 101])
def test_fractions_that_add_up_to_one_leave_nothing_over(total):
    parts = stratified_split(named([0, 1] * total, "ab"), (0.7, 0.15, 0.15), seed=0)
    assert sum(len(part) for part in parts) == 2 * total


def test_the_seed_alone_decides(pets):
    again = named(pets.targets.clone(), "cdf")
    state = global_state()
    first = [part.indices for part in stratified_split(pets, (0.5, 0.5), seed=3)]
    assert [part.indices for part in stratified_split(again, (0.5, 0.5), seed=3)] == first
    assert [part.indices for part in stratified_split(again, (0.5, 0.5), seed=4)] != first
    assert global_state() == state


def test_a_part_knows_what_it_is_part_of(pets):
    train, _ = stratified_split(pets, (0.8, 0.2), seed=0)
    assert isinstance(train, Subset)
    assert train.classes == ["c", "d", "f"] and train.class_to_idx == {"c": 0, "d": 1, "f": 2}
    assert train.source == "made here"
    assert train.targets.tolist() == [train[i][1] for i in range(len(train))]
    half, _ = stratified_split(train, (0.5, 0.5), seed=0)
    assert half.targets.tolist() == [half[i][1] for i in range(len(half))]
    assert half.classes == pets.classes and half.source == pets.source
    again = pickle.loads(pickle.dumps(half))
    assert torch.equal(again.targets, half.targets) and again[3][1] == half[3][1]


def test_items_come_in_no_order_of_classes():
    whole = named([0] * 50 + [1] * 50, "ab")
    for part in stratified_split(whole, (0.5, 0.5), seed=0):
        changes = (part.targets[1:] != part.targets[:-1]).sum()
        assert changes > 10


@pytest.mark.parametrize("parts", [(0.9, 0.1), (0.5, 0.25, 0.25), (8, 4)])
def test_rare_classes_are_listed(parts):
    whole = named([0] * 20 + [1] * 20 + [2] + [3] * 2, ("cat", "dog", "newt", "eel"))
    with pytest.raises(DataError, match="1 of 'newt', 2 of 'eel'") as caught:
        stratified_split(whole, parts, seed=0)
    assert "make the parts larger" in str(caught.value)


def test_four_items_do_not_fill_five_parts():
    whole = named([0] * 20 + [1] * 20 + [2] * 4, ("cat", "dog", "newt"))
    with pytest.raises(DataError, match="takes 6 items of a class: there are 4 of 'newt'"):
        stratified_split(whole, (0.2,) * 5, seed=0)


@pytest.mark.parametrize("seed", range(20))
def test_no_part_ever_lacks_a_class(seed):
    whole = named([0] * 100 + [1] * 5, "ab")
    try:
        parts = stratified_split(whole, (0.6, 0.2, 0.1, 0.1), seed=seed)
    except DataError as error:
        assert "5 of 'b'" in str(error)
    else:
        assert all(0 not in class_counts(part).values() for part in parts)


def test_a_class_without_items_is_passed_over(pets):
    no_fish = Subset(pets, torch.nonzero(pets.targets != 2).flatten().tolist())
    train, val = stratified_split(no_fish, (0.5, 0.5), seed=0)
    assert class_counts(train) == class_counts(val) == {"c": 30, "d": 15, "f": 0}
    assert class_counts(few_shot_subset(no_fish, 4, seed=0)) == {"c": 4, "d": 4, "f": 0}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((0.8, 0.3), "add up to 1"),
        ((0.8, 20), "expected fractions"),
        ((), "expected fractions"),
        ((90, 20), "no more than there are"),
        ((0.999, 0.001), "at least one item"),
        ((-0.5, 0.5), "at least one item"),
        ((0, 50), "at least one item"),
    ],
)
def test_wrong_parts_are_refused(pets, parts, words):
    with pytest.raises(DataError, match=words):
        stratified_split(pets, parts, seed=0)


def test_a_wrong_seed_is_not_called_a_rare_class(pets):
    with pytest.raises(ValueError, match="Seed must be"):
        stratified_split(pets, (0.5, 0.5), seed=-1)


# --- grouped_split -----------------------------------------------------------------------------


@pytest.fixture
def patients() -> tuple[TensorImages, np.ndarray]:
    """60 patients of 1 to 39 images, most of them of one class, in no order."""
    random = np.random.default_rng(0)
    groups = random.permutation(np.repeat(np.arange(60), random.integers(1, 40, 60)))
    likely = random.dirichlet([1.5, 0.6, 0.2], 60)
    return named([random.choice(3, p=likely[g]) for g in groups], "cdf"), groups


def shares(parts, whole) -> np.ndarray:
    """Part by class, and in the last column all classes: the share of the whole."""
    counts = np.array([[*class_counts(part).values(), len(part)] for part in parts])
    return counts / [*class_counts(whole).values(), len(whole)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("parts", [(0.7, 0.15, 0.15), (0.5, 0.2), (0.9, 0.1)])
def test_no_group_is_in_two_parts_and_classes_are_even(patients, parts, seed):
    whole, groups = patients
    split = grouped_split(whole, parts, groups, seed=seed)
    of_part = [set(groups[part.indices]) for part in split]
    assert sum(map(len, of_part)) == len(set().union(*of_part))
    items = [index for part in split for index in part.indices]
    assert len(items) == len(set(items)) and (sum(parts) < 1 or len(items) == len(whole))
    assert np.abs(shares(split, whole) - np.array(parts)[:, None]).max() < 0.06
    for part, members in zip(split, of_part, strict=True):
        together = np.isin(groups, list(members)).sum()
        assert together == len(part)


def test_it_is_as_even_as_scikit_learns_folds(patients):
    whole, groups = patients
    ours, theirs = [], []
    for seed in range(5):
        split = grouped_split(whole, (0.2,) * 5, groups, seed=seed)
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        found = folds.split(groups, whole.targets.numpy(), groups)
        other = [Subset(whole, test.tolist()) for _, test in found]
        for parts, errors in ((split, ours), (other, theirs)):
            errors.append(np.abs(shares(parts, whole) - 0.2)[:, [0, 1, 3]].mean())
    assert np.mean(ours) <= np.mean(theirs) * 1.2


def test_numbers_of_items_are_kept_as_nearly_as_groups_allow(patients):
    whole, groups = patients
    train, val = grouped_split(whole, (500, 100), groups, seed=0)
    assert abs(len(train) - 500) < 20 and abs(len(val) - 100) < 20


def test_labels_groups_and_seed_alone_decide(patients):
    whole, groups = patients
    state = global_state()

    def split(labels, seed=3):
        parts = grouped_split(whole, (0.6, 0.4), labels, seed=seed)
        return [part.indices for part in parts]

    first = split(groups)
    assert split(groups) == first and split(torch.tensor(groups)) == first
    assert split([f"patient {97 * g % 60}" for g in groups]) == first
    assert split([(int(g), "left") for g in groups]) == first
    others = {tuple(sorted(split(groups, seed)[0])) for seed in range(10)}
    assert len(others) == 10
    assert global_state() == state


def test_a_grouped_part_is_like_any_other(patients):
    whole, groups = patients
    train, _ = grouped_split(whole, (0.8, 0.2), groups, seed=0)
    assert train.classes == ["c", "d", "f"] and train.source == "made here"
    assert train.targets.tolist() == [train[i][1] for i in range(len(train))]
    assert sorted(train.indices) != train.indices
    inner, held = grouped_split(train, (0.5, 0.5), groups[train.indices], seed=0)
    of_inner, of_held = (groups[train.indices][part.indices] for part in (inner, held))
    assert not set(of_inner) & set(of_held)


@pytest.mark.parametrize("seed", range(10))
def test_scarce_groups_reach_every_part(seed):
    # Class b is in three groups only, and there are as many groups as parts in the second case.
    whole, groups = named([0] * 60 + [1] * 6, "ab"), [*range(20)] * 3 + [20, 21, 22] * 2
    for part in grouped_split(whole, (0.8, 0.1, 0.1), groups, seed=seed):
        assert 0 not in class_counts(part).values()
    sizes = [len(p) for p in grouped_split(named([0] * 12, "a"), (0.8, 0.1, 0.1),
                                           [0] * 8 + [1] * 3 + [2], seed=seed)]  # fmt: skip
    assert sorted(sizes) == [1, 3, 8] and sizes[0] == 8


def test_a_class_of_one_group_is_said_to_be_missing():
    whole = named([0] * 10 + [1] * 2, "ab")
    with pytest.warns(UserWarning, match="not in every part.*: b$") as caught:
        parts = grouped_split(whole, (0.5, 0.5), [*range(10), 10, 10], seed=0)
    assert caught[0].filename == __file__
    assert sorted(class_counts(part)["b"] for part in parts) == [0, 2]


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([0, 1, 2], "3 group labels for 6 items"),
        ([0, 0, 0, 1, 1, 1], "2 groups cannot fill 3 parts"),
        ([0, 1, None, 3, None, 5], "2 items have no group label, the first being item 2"),
        (np.array([0, 1, 2, 3, 4, np.nan]), "1 items have no group label"),
    ],
)
def test_wrong_groups_are_refused(groups, words):
    with pytest.raises(DataError, match=words):
        grouped_split(named([0, 1] * 3, "ab"), (0.4, 0.3, 0.3), groups, seed=0)


@pytest.mark.parametrize("parts", [(0.8, 0.3), (), (90, 20), (0.999, 0.001)])
def test_wrong_parts_of_groups_are_refused(pets, parts):
    with pytest.raises(DataError, match=r"expected fractions|at least one item"):
        grouped_split(pets, parts, range(100), seed=0)


# --- few_shot_subset ---------------------------------------------------------------------------


def test_few_shots_are_balanced_and_nested(pets):
    five, ten = (few_shot_subset(pets, count, seed=2) for count in (5, 10))
    assert class_counts(five) == {"c": 5, "d": 5, "f": 5}
    assert set(five.indices) < set(ten.indices) and len(set(ten.indices)) == 30
    assert few_shot_subset(pets, 5, seed=2).indices == five.indices
    assert few_shot_subset(pets, 5, seed=3).indices != five.indices
    assert five.targets[:3].tolist() == [0, 1, 2]


def test_few_shots_of_too_few_are_refused(pets):
    with pytest.raises(DataError, match=r"31 items per class .* 30 of 'd', 10 of 'f'"):
        few_shot_subset(pets, 31, seed=0)
    with pytest.raises(DataError, match="per_class is 0"):
        few_shot_subset(pets, 0, seed=0)


# --- targets, names and counts -----------------------------------------------------------------


class WithList(Dataset):
    """Labels in a plain list, as torchvision's ImageFolder keeps them."""

    targets = (1, 0, 1)
    classes = ("no", "yes", "maybe")


def test_labels_of_every_kind_of_dataset(pets):
    assert targets_of(WithList()).tolist() == [1, 0, 1]
    assert class_counts(WithList()) == {"no": 1, "yes": 2, "maybe": 0}
    plain = TensorDataset(torch.zeros(4, 2), torch.tensor([2, 0, 2, 1]))
    assert class_counts(plain) == {"0": 1, "1": 1, "2": 2}
    assert targets_of(Subset(Subset(plain, [3, 2, 1]), [0, 2])).tolist() == [1, 0]
    assert class_names(Subset(pets, [0])) == ["c", "d", "f"]


def test_a_dataset_without_labels_is_named():
    class Unlabelled(Dataset):
        pass

    with pytest.raises(DataError, match="Unlabelled has no `targets`"):
        class_counts(Unlabelled())


# --- make_loaders ------------------------------------------------------------------------------


def order(loader) -> list[int]:
    return [int(value) for images, _ in loader for value in images[:, 0, 0, 0] * 255 + 0.5]


def test_loaders_shuffle_the_training_data_only(pets):
    train, val = stratified_split(pets, (80, 20), seed=0)
    train_loader, val_loader = make_loaders(train, val, batch_size=32, seed=5)
    first, second = order(train_loader), order(train_loader)
    assert first != second and sorted(first) == sorted(second) == sorted(train.indices)
    assert order(val_loader) == val.indices
    again, _ = make_loaders(train, val, batch_size=32, seed=5)
    assert [order(again), order(again)] == [first, second]
    other, _ = make_loaders(train, val, batch_size=32, seed=6)
    assert order(other) != first


def test_loaders_leave_the_global_random_state_alone(pets):
    train_loader, val_loader = make_loaders(pets, pets)
    state = global_state()
    order(train_loader), order(val_loader)
    assert global_state() == state


def test_a_last_batch_of_one_is_dropped_with_a_warning(pets):
    with pytest.warns(UserWarning, match="dropped") as caught:
        train_loader, val_loader = make_loaders(pets, pets, batch_size=33)
    assert caught[0].filename == __file__
    assert [len(labels) for _, labels in train_loader] == [33, 33, 33]
    assert [len(labels) for _, labels in val_loader] == [33, 33, 33, 1]
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.BatchNorm1d(2))
    for images, _ in train_loader:
        net(images)


def test_other_last_batches_are_kept_silently(pets):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_loader, _ = make_loaders(pets, pets, batch_size=49)
    assert [len(labels) for _, labels in train_loader] == [49, 49, 2]


@pytest.mark.parametrize(("train", "val", "size"), [(1, 5, 4), (5, 5, 1), (5, 0, 4), (0, 5, 4)])
def test_loaders_that_could_not_train_are_refused(pets, train, val, size):
    with pytest.raises(DataError, match="BatchNorm"):
        make_loaders(Subset(pets, range(train)), Subset(pets, range(val)), batch_size=size)


def test_different_classes_are_refused_with_both_sides(pets):
    with pytest.raises(DataError, match=r"\['c', 'd', 'f'\].*\['f', 'd', 'c'\]"):
        make_loaders(pets, Subset(named([0, 1, 2], "fdc"), [0, 1]))


class Noisy(Dataset):
    """Items drawn from the three random number generators."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        values = [random.random(), np.random.rand(), torch.rand(1).item()]  # noqa: NPY002
        return torch.tensor(values), 0


def test_workers_are_seeded():
    def epoch(seed: int) -> torch.Tensor:
        train_loader, _ = make_loaders(Noisy(), Noisy(), batch_size=4, seed=seed, num_workers=2)
        return torch.cat([values for values, _ in train_loader])

    first = epoch(0)
    assert torch.equal(epoch(0), first) and len(first.unique()) == first.numel()
    assert not torch.equal(epoch(1), first)
