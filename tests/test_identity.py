import functools
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchvision.transforms import v2

from tlbook.identity import dataset_digest, describe, image_digests, network_digest
from tlbook.isolation import alone


def of_model(build):
    with alone(seed=0, threads=1):
        images, targets = torch.rand(4, 1, 6, 6), torch.tensor([0, 1, 0, 1])
        return network_digest(build(), images, targets)


class Net(nn.Sequential):
    def __init__(self, bias=True, drop=0.0):
        super().__init__(nn.Flatten(), nn.Linear(36, 4, bias=bias), nn.Linear(4, 2))
        self.drop = drop

    def forward(self, x):
        return nn.functional.dropout(super().forward(x), self.drop, self.training)


class Stopped(Net):
    """As Net, with the same outputs, but nothing before the last layer learns."""

    def forward(self, x):
        return self[2](self[1](self[0](x)).detach())


Stopped.__name__ = "Net"


def frozen():
    net = Net()
    net[1].requires_grad_(False)
    return net


def test_networks_are_told_by_what_they_are_and_do():
    builders = [Net, functools.partial(Net, bias=False), functools.partial(Net, drop=0.5), Stopped,
                frozen, lambda: Net().double().float().apply(lambda m: None) and Net()]  # fmt: skip
    found = [of_model(build) for build in builders]
    assert len(set(found)) == len(builders)
    assert found == [of_model(build) for build in builders]


def test_functions_are_told_by_code_and_values():
    def make(number):
        return lambda image: image * number

    different = [
        make(1), make(2), functools.partial(torch.add, other=1), functools.partial(torch.add),
        torch.add, v2.RandomRotation(10), v2.RandomRotation(20),
        v2.Compose([v2.Lambda(make(1))]), v2.Compose([v2.Lambda(make(2))]), 1, "1", None,
        torch.zeros(2), torch.ones(2), {"a": 1}, {1, 2}, [1, 2], torch.optim.SGD, torch.optim.Adam,
    ]  # fmt: skip
    texts = [describe(thing) for thing in different]
    assert len(set(texts)) == len(texts)
    assert describe(make(1)) == describe(make(1))
    assert describe(v2.Compose([v2.Lambda(make(1))])) == describe(v2.Compose([v2.Lambda(make(1))]))
    assert not any(" at 0x" in text for text in texts)


SCRIPT = """
from tlbook.identity import describe
STRENGTH = 1
def augment(image):
    return image + STRENGTH if image.name in {"a", "b", "c"} else [i for i in image]
class Shift:
    def __init__(self): self.by = 3
    def __call__(self, image): return image + self.by
print(describe(augment), describe(Shift()))
"""


def test_descriptions_hold_from_one_process_to_the_next(capsys):
    root = Path(__file__).parent.parent
    other = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=root, capture_output=True, text=True, check=True
    )
    exec(SCRIPT, {})
    assert capsys.readouterr().out == other.stdout
    for old, new in (("STRENGTH = 1", "STRENGTH = 2"), ("+ self.by", "- self.by"), ("= 3", "= 4")):
        exec(SCRIPT.replace(old, new), {})
        assert capsys.readouterr().out != other.stdout, new


def test_datasets_are_told_by_every_pixel_and_label():
    images, targets = torch.rand(5, 1, 3, 3), torch.tensor([0, 1, 0, 1, 0])

    def found(images, targets):
        data = TensorDataset(images, targets)
        return dataset_digest(data, image_digests(data))

    changed = images.clone()
    changed[4, 0, 2, 2] += 1e-6
    one = found(images, targets)
    assert one == found(images.clone(), targets.clone())
    assert one not in {found(changed, targets), found(images, 1 - targets)}
    assert one != found(images.flip(0), targets.flip(0))
