import threading

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from tlbook.data import DataError
from tlbook.folds import Augmented, _packed
from tlbook.isolation import alone
from tlbook.selection import cross_validate


class Items(Dataset):
    """Images that are made when they are asked for, as those of files are."""

    def __init__(self, count=30, **attributes):
        self.targets = [item % 3 for item in range(count)]
        self.__dict__ |= attributes

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, item):
        image = torch.full((1, 2, 2), float(self.targets[item]))
        image[0, 0, 0] = item / 100
        return image, self.targets[item]


NETS = {"linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 3))}
QUICK = {"folds": 3, "epochs": 1, "batch_size": 10, "precision": "float32"}


def test_datasets_that_are_not_in_memory_give_the_same_in_other_processes():
    one, two = (cross_validate(NETS, Items(), n_jobs=n, **QUICK) for n in (1, 2))
    assert one.scores("linear") == two.scores("linear")
    tensors = TensorDataset(
        torch.stack([image for image, _ in Items()]), torch.tensor(Items().targets)
    )
    assert cross_validate(NETS, tensors, **QUICK).scores("linear") == one.scores("linear")


def test_data_that_cannot_travel_is_refused():
    with pytest.raises(DataError, match=r"the dataset cannot be sent to another process.*lock"):
        cross_validate(NETS, Items(lock=threading.Lock()), **QUICK)


def test_what_travels_is_one_flat_array():
    data = TensorDataset(torch.rand(100, 1, 8, 8), torch.arange(100))
    packed = _packed(data)
    assert packed.ndim == 1 and packed.nbytes < data.tensors[0].nbytes * 1.2


def test_an_interrupted_fold_is_not_kept(tmp_path):
    class Interrupts(nn.Linear):
        def forward(self, x):
            if self.training and torch.initial_seed() != 0:  # not when it is tried
                raise KeyboardInterrupt
            return super().forward(x.flatten(1))

    with pytest.raises(KeyboardInterrupt):
        cross_validate({"net": lambda: Interrupts(4, 3)}, Items(), store=tmp_path, **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_augmented_images_are_new_each_time():
    data = Augmented(Items(), lambda image: image + torch.rand(1))
    with alone(seed=0, threads=1):
        first, second = data[1], data[1]
    assert first[1] == second[1] == 1 and not torch.equal(first[0], second[0])
    assert len(data) == 30


def test_only_one_block_at_a_time_has_the_random_state():
    inside, most = [0], [0]

    def work():
        with alone(seed=1, threads=1):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            torch.rand(100_000).sort()
            inside[0] -= 1

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert most == [1]
