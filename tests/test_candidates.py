import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from tlbook.candidates import SelectionError, inspect_candidates
from tlbook.models import SlimVGG

DATA = TensorDataset(torch.rand(6, 1, 28, 28), torch.arange(6))


def test_candidates_are_measured_and_told_apart():
    nets = {
        "slim": lambda: SlimVGG(num_classes=6),
        "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 6)),
        "lazy": lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(6)),
    }
    found = inspect_candidates(nets, DATA)
    assert [candidate.name for candidate in found] == list(nets)
    assert [candidate.parameters for candidate in found[1:]] == [4710, 4710]
    assert found[1].mult_adds == 4710 < found[0].mult_adds
    assert len({candidate.digest for candidate in found}) == 3
    assert inspect_candidates(nets, DATA) == found


def test_a_network_for_other_images_is_refused_by_name():
    with pytest.raises(SelectionError, match=r"candidate 'wide' fails.*28×28 pixels"):
        inspect_candidates({"wide": lambda: SlimVGG(num_classes=6, image_size=32)}, DATA)
