"""Checks of the exercises in *Fast on your machine*.

Functions that a reader writes are run on networks with planted tensors and on one whose layout is
lost in other places than in the chapter's.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small, shufflenet_v2_x0_5

from tlbook.check.grading import NotYet, exercise, expect, expect_function, expect_table

STRIDES = {"contiguous": (9600, 600, 30, 1), "channels_last": (9600, 1, 480, 16)}
STRIDE_HINTS = {
    "contiguous": {
        "(9600, 1, 480, 16)": "those are the strides of channels-last.",
        "(8, 16, 20, 30)": "that is the shape; how far apart are two neighbours in memory?",
        "(1, 30, 600, 9600)": "the last dimension has its neighbours side by side, not the first.",
        "(1, 8, 128, 2560)": "the last dimension has its neighbours side by side, not the first.",
        "(76800, 9600, 600, 30)": "a stride leaves out its own dimension: the last one is 1.",
        "(9600, 600, 20, 1)": "the next row comes after a whole row; how wide is a row?",
    },
    "channels_last": {
        "(9600, 600, 30, 1)": "those are the strides of the usual order.",
        "(9600, 480, 16, 1)": "give them in the order N, C, H, W: the shape has not changed.",
        "(9600, 1, 320, 16)": "the next row comes after a whole row; how wide is a row?",
        "(9600, 1, 30, 16)": "between two rows lie the channels of every pixel in a row.",
        "(9600, 1, 600, 30)": "between two pixels side by side lie the channels, not a row.",
        "(9600, 16, 480, 1)": "in the order N, C, H, W: which neighbours lie side by side?",
        "(9600, 1, 480, 1)": "two pixels side by side are not 1 apart: all channels lie between.",
    },
}
SHARE = 20 * 3 * 2 * 2.83e9 / 0.85e12
SHARE_HINTS = {
    "0.2": "a mult-add is a multiplication and an addition.",
    "0.13": "that is a forward pass; a training step counts as three.",
    "0.07": "a mult-add is two operations, and a training step three forward passes.",
    "0.02": "that is one image a second.",
    "2.5": "that is the inverse.",
    "40.0": "between 0 and 1, please: divide by 100.",
}


class Planted(nn.Module):
    """A head with tensors of all kinds: registered, plain, and not tensors at all."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(1)
        self.shift = nn.Parameter(torch.zeros(1))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("draft", torch.zeros(3), persistent=False)
        self.classes = 10
        self.inner = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
        self.inner[1].temperature = torch.ones(2)


class Shuffled(nn.Module):
    """Convolutions of which one is followed by a copy into the usual order."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.copied = Contiguous()
        self.drop = nn.Dropout(0.9)
        self.last = nn.Conv2d(8, 8, 3)
        self.flat = nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(N, 3, H, W)` to features `(N, F)`."""
        if self.training:
            raise NotYet("run the network in evaluation mode.")
        if not x.is_contiguous(memory_format=torch.channels_last):
            raise NotYet("the images are not in channels-last; mind that a tensor's to returns it.")
        if torch.is_grad_enabled():
            raise NotYet("run it without gradients: torch.inference_mode().")
        return self.flat(self.last(self.drop(self.copied(self.first(x)))))


class Contiguous(nn.Module):
    """What a reshape with a copy does to the layout."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` in the usual order."""
        return x.contiguous()


@exercise('Two strides: answer = {"contiguous": (...), "channels_last": (...)}.')
def fast_1(answer: Any) -> None:
    """The strides of one batch in two layouts."""
    if isinstance(answer, dict):
        answer = {key: tuple(v) if isinstance(v, list) else v for key, v in answer.items()}
    expect_table(answer, STRIDES, STRIDE_HINTS)


@exercise("Which share does DenseNet-121 use? answer = a number from 0 to 1.")
def fast_2(answer: Any) -> None:
    """A share of the processor's best, by the convention of the chapter."""
    if isinstance(answer, Tensor) and answer.numel() == 1:
        answer = answer.item()
    if isinstance(answer, int | float) and abs(answer - SHARE) < 0.006:
        return
    rounded = round(answer, 2) if isinstance(answer, float) else answer
    for value, hint in SHARE_HINTS.items():
        if isinstance(rounded, int | float) and rounded == float(value):
            raise NotYet(hint)
    expect(answer, SHARE)


@exercise("Write stays_behind(model), a list of paths: answer = stays_behind.")
def fast_3(answer: Any) -> None:
    """Plain attributes in a small module and in a MobileNetV3."""
    expect_function(answer, "a model")
    _expect_paths(answer(Planted()), ["inner.1.temperature", "scale"])
    network = mobilenet_v3_small(weights=None)
    _expect_paths(answer(network), [])
    network.features[3].mean = torch.zeros(1)
    network.classifier[0].gain = torch.ones(1)
    _expect_paths(answer(network), ["classifier.0.gain", "features.3.mean"])


@exercise("Write loses_layout(model, images): answer = loses_layout.")
def fast_4(answer: Any) -> None:
    """A network with one copy, and ShuffleNet."""
    expect_function(answer, "a network and images")
    images = torch.rand(2, 3, 64, 64)
    network = Shuffled()
    _expect_lost(answer(network, images), ["copied", "drop"], "a small network")
    if any(module._forward_hooks for module in network.modules()):
        raise NotYet("hooks are left behind: call remove() on each.")
    blocks = [("stage2", 4), ("stage3", 8), ("stage4", 4)]
    right = [p for name, n in blocks for p in [*(f"{name}.{i}" for i in range(n)), name]]
    _expect_lost(answer(shufflenet_v2_x0_5(weights=None), images), right, "ShuffleNet")


def _expect_paths(found: Any, right: list[str]) -> None:
    if not isinstance(found, list | tuple):
        raise NotYet(f"expected a list of paths, your function returns {type(found).__name__}.")
    found = list(found)
    extra, missing = sorted(set(found) - set(right)), sorted(set(right) - set(found))
    if any(path.startswith(".") for path in extra):
        raise NotYet(f"{extra[0]!r} begins with a dot: the model itself has the empty path.")
    if extra:
        raise NotYet(f"{extra[0]!r} is registered, or no tensor: model.to takes care of it.")
    if missing:
        where = "inside another module" if "." in missing[0] else "in the model itself"
        raise NotYet(f"a tensor {where} is missing.")
    if found != right:
        raise NotYet("the right paths, but not sorted, or not each once.")


def _expect_lost(found: Any, right: list[str], name: str) -> None:
    if not isinstance(found, list | tuple):
        raise NotYet(f"expected a list of paths, your function returns {type(found).__name__}.")
    found = list(found)
    if "" in found:
        raise NotYet("the network as a whole is on your list; its output has no height and width.")
    extra = [path for path in found if path not in right]
    if extra:
        raise NotYet(
            f"{name}: {extra[0]!r} gives a channels-last output, or none with 4 dimensions."
        )
    missing = [path for path in right if path not in found]
    if missing:
        raise NotYet(f"{name}: found {len(found)} of {len(right)}; look at every module, "
                     "containers too, and at outputs only.")  # fmt: skip
    if found != right:
        raise NotYet(f"{name}: the right paths in another order, or not each once; a module "
                     "finishes after those inside it.")  # fmt: skip
