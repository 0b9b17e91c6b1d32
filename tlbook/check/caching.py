"""Checks of the exercises in *caching features*: what may be kept, where to cut, and the key.

Functions are tried on small networks with random weights, so that a check takes no time.
"""

import copy
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tlbook.check.grading import NotYet, exercise, expect_function

MAY = {
    "a": (True, "dropout behind the cut draws anew in each epoch, from the same features."),
    "b": (False, "a new crop in each epoch gives new features, and a cache holds one crop."),
    "c": (False, "without gradients, but in training mode: features depend on the batch."),
    "d": (False, "layer4 stands in front of the cut and trains: its features change."),
    "e": (True, "what trains stands behind the cut, and all in front of it is fixed."),
    "f": (True, "the noise is added behind the cut, to features that stay the same."),
}


@exercise(
    "In which of the cases a to f may the values at the cut be kept for all epochs? "
    'answer = a list of letters, such as ["a"].'
)
def caching_1(answer: Any) -> None:
    """What may be cached, and what may not."""
    if isinstance(answer, str):
        answer = re.findall(r"[a-zA-Z]", answer)
    if not isinstance(answer, list | tuple | set | frozenset):
        raise NotYet(f"expected a list of letters, found {type(answer).__name__}.")
    letters = {str(letter).strip(" ().").lower() for letter in answer}
    if unknown := sorted(letters - MAY.keys()):
        raise NotYet(f"{unknown[0]!r} is none of the cases a to f.")
    if not letters:
        raise NotYet("some of the cases allow it.")
    for letter, (may, reason) in MAY.items():
        if (letter in letters) != may:
            raise NotYet(f"{letter}: {reason}")


@exercise(
    "How many bytes does the cache of densenet121 behind features.denseblock2 take, for 1,000 "
    "images of 224 pixels in float16? answer = a number."
)
def caching_2(answer: Any) -> None:
    """Bytes on the disk of maps in the middle of a network."""
    hints = {
        1_605_632_000: "that is float32, or denseblock1; float16 has two bytes a number.",
        802_816: "that is one image; there are 1,000.",
        401_408_000: "those are the numbers; each of them has two bytes.",
        401_408: "those are the numbers of one image.",
        200_704_000: "that is behind transition2, which halves channels and sides.",
        100_352_000: "that is one byte a number; float16 has two.",
        1_024_000: "that is one number for each channel; the cut keeps whole maps.",
    }
    if getattr(answer, "ndim", None) == 0 and hasattr(answer, "item"):
        answer = answer.item()
    if not isinstance(answer, int | float):
        raise NotYet(f"expected a number, found {type(answer).__name__}.")
    right = 802_816_000
    if answer in (803, 802.8, 802.816, 766, 765.6, 0.803, 0.8, 800):
        raise NotYet("expected all bytes, not mega- or gigabytes.")
    if answer != right and abs(answer / right - 1) < 0.05:
        raise NotYet("nearly; count exactly: channels, rows, columns, images, bytes a number.")
    if answer != right:
        raise NotYet(hints.get(answer, f"{answer:,} is not the right number of bytes."))


@exercise(
    "Write a function of (network, images) that returns a key: a text that is the same for a copy "
    "in any mode and different after any change. answer = the function."
)
def caching_3(answer: Any) -> None:
    """A key that depends on all weights, all statistics and all images, and on nothing else."""
    expect_function(answer, "a network and images")
    network, images = _net(), _images(8)
    key = answer(network, images)
    if not isinstance(key, str):
        raise NotYet(f"the function returned {type(key).__name__}; expected a text (str).")
    if re.fullmatch(r"(-?\d{11,19}\W*)+", key):
        raise NotYet("Python's hash gives other numbers in the next process; take hashlib.")
    again = {
        "the same network and images a second time": (network, images),
        "a copy": (copy.deepcopy(network), images.clone()),
        "a copy in training mode": (copy.deepcopy(network).train(), images),
    }
    for what, pair in again.items():
        if answer(*pair) != key:
            raise NotYet(f"{what} gives another key; expected the same one.")
    for what, change in _CHANGES.items():
        changed, shown = copy.deepcopy(network), images.clone()
        with torch.no_grad():
            shown = change(changed, shown)
        if answer(changed, shown) == key:
            raise NotYet(f"the key does not notice {what}.")


@exercise(
    "Write a function of (network, nodes, size, budget) that returns the last of the nodes where "
    "the cut is clean and one image's maps take at most budget bytes, or None. answer = the "
    "function."
)
def caching_4(answer: Any) -> None:
    """The deepest clean cut that fits on the disk."""
    expect_function(answer, "a network, nodes, a size and a budget")
    for name, budget, right in CUTS:
        build, nodes, hints = _NETWORKS[name]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = build().eval()
        found = answer(network, list(nodes), (3, 8, 8), budget)
        if found is not None and not isinstance(found, str):
            raise NotYet(f"the function returned {type(found).__name__}; expected a node's name.")
        if found != right:
            hint = hints.get(found, f"{found!r} is not the last clean cut that fits.")
            raise NotYet(f"{name}, budget {budget} bytes: {hint}")


def _net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()


def _images(count: int) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def _change(path: str, images: Tensor, network: nn.Module) -> Tensor:
    network.state_dict()[path].flatten()[-1] += 1e-5
    return images


def _other_pixel(network: nn.Module, images: Tensor) -> Tensor:
    images[3, 1, 4, 4] += 1e-5
    return images


def _exchanged(network: nn.Module, images: Tensor) -> Tensor:
    return images.flip(0)


_CHANGES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "one weight of the convolution": lambda net, x: _change("0.weight", x, net),
    "one running mean of BatchNorm": lambda net, x: _change("1.running_mean", x, net),
    "one pixel in the middle": _other_pixel,
    "that two images have changed places": _exchanged,
    "that an image is missing": lambda net, x: x[:-1],
}


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.norm(self.conv(x))], dim=1)


def _plain() -> nn.Module:
    layers = {"wide": nn.Conv2d(3, 8, 1), "pool": nn.MaxPool2d(2), "wider": nn.Conv2d(8, 32, 1)}
    return nn.Sequential(OrderedDict(layers | {"flatten": nn.Flatten(), "fc": nn.Linear(512, 2)}))


def _with_a_shortcut() -> nn.Module:
    stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
    return nn.Sequential(OrderedDict(stem=stem, block=_Block(), end=nn.Conv2d(8, 64, 1)))


_NOTHING = (
    "one of the nodes fits, and the cut behind it is clean; a node before it that is too large "
    "does not end the search."
)
_NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[str], dict[str | None, str]]] = {
    "a plain network": (
        _plain,
        ["wide", "pool", "wider"],
        {
            "wide": "a later node fits as well, or this one does not; mind the bytes a number.",
            "wider": "that keeps more than the budget; a number in float32 takes four bytes.",
            "pool": "a later node fits as well; at most includes the budget itself.",
            None: _NOTHING,
        },
    ),
    "a network with a shortcut": (
        _with_a_shortcut,
        ["stem", "block.conv", "block.norm", "block", "end"],
        {
            "block.conv": "a shortcut crosses that cut; split_at refuses it.",
            "block.norm": "a shortcut crosses that cut; split_at refuses it.",
            "stem": "a later cut is clean and fits as well, or this one does not fit.",
            "block": "that keeps more than the budget; a number in float32 takes four bytes.",
            "end": "that keeps more than the budget; a number in float32 takes four bytes.",
            None: _NOTHING,
        },
    ),
}
CUTS = [
    ("a plain network", 600, "pool"),
    ("a plain network", 2048, "wider"),
    ("a network with a shortcut", 256, "stem"),
    ("a network with a shortcut", 512, "block"),
    ("a network with a shortcut", 255, None),
]
