"""Checks of the exercises in *ants and bees*: counting, protocol, mixtures, sizes."""

import copy
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tlbook.check.grading import NotYet, exercise, expect_function

LOOKED = {
    "a": (False, "the mean of all seeds is reported, and nothing is left out for its accuracy."),
    "b": (True, "the best of five is taken by the number that is reported."),
    "c": (True, "the validation accuracy decides when to stop, and is then reported."),
    "d": (False, "the folds lie inside the training photographs."),
    "e": (True, "the size is a choice like any other, and these photographs made it."),
    "f": (False, "the epoch was fixed before anything was measured."),
}


@exercise(
    "How many of the 153 validation photographs were judged wrongly, at an accuracy of 0.954? "
    "answer = a number."
)
def ants_and_bees_1(answer: Any) -> None:
    """From an accuracy back to photographs."""
    if getattr(answer, "ndim", None) == 0 and hasattr(answer, "item"):
        answer = answer.item()
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        raise NotYet(f"expected a number, found {type(answer).__name__}.")
    if answer == 146:
        raise NotYet("those are the right ones.")
    if answer != 7:
        near = 6.5 < answer < 7.5
        hint = "photographs are whole: round." if near else "0.954 of 153 are right; the rest?"
        raise NotYet(f"{answer}: {hint}")


@exercise(
    "In which of the cases a to f has a choice been made on the validation photographs? "
    'answer = a list of letters, such as ["a"].'
)
def ants_and_bees_2(answer: Any) -> None:
    """Who has looked at the photographs that are reported."""
    if isinstance(answer, str):
        answer = re.findall(r"[a-zA-Z]", answer)
    if not isinstance(answer, list | tuple | set | frozenset):
        raise NotYet(f"expected a list of letters, found {type(answer).__name__}.")
    letters = {str(letter).strip(" ().").lower() for letter in answer}
    if unknown := sorted(letters - LOOKED.keys()):
        raise NotYet(f"{unknown[0]!r} is none of the cases a to f.")
    if not letters:
        raise NotYet("some of the cases do.")
    for letter, (looked, reason) in LOOKED.items():
        if (letter in letters) != looked:
            raise NotYet(f"{letter}: {reason}")


@exercise(
    "Write a function of (members, targets) that returns the accuracy of the mean of the members' "
    "log-odds. answer = the function."
)
def ants_and_bees_3(answer: Any) -> None:
    """The accuracy of a mixture is not the mixture of accuracies, nor a vote."""
    expect_function(answer, "members and targets")
    for members, targets, right, hints in MIXTURES:
        found = answer([np.array(member, float) for member in members], np.array(targets))
        if getattr(found, "ndim", None) == 0 and hasattr(found, "item"):
            found = found.item()
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise NotYet(f"the function returned {type(found).__name__}; expected a number.")
        if abs(found - right) > 1e-6:
            near = [hint for value, hint in hints.items() if abs(found - value) < 1e-6]
            raise NotYet(near[0] if near else f"{members}: {found:g} is not the accuracy.")


# Members' log-odds, targets, the right accuracy, hints by what typical mistakes give.
MIXTURES = [
    (
        [[4.0, -1.0, -1.0, -1.0], [-1.0, 3.0, -1.0, 1.0], [-1.0, -1.0, -1.0, -4.0]],
        [1, 1, 0, 0],
        1.0,
        {
            7 / 12: "that is the mean of the members' accuracies; mix their log-odds.",
            0.75: "average the log-odds and compare with 0; one half belongs to probabilities.",
            0.5: "that is a vote; a member that is sure counts for more than one that is not.",
            0.0: "classes are exchanged: log-odds above 0 speak for class 1.",
        },
    ),
    ([[2.0, -2.0]], [1, 1], 0.5, {1.0: "targets are 0 or 1; log-odds above 0 mean class 1."}),
]


@exercise(
    "Write a function of (backbone, images, sides) that returns the features of images at each "
    "side, side by side. answer = the function."
)
def ants_and_bees_4(answer: Any) -> None:
    """Features at several sizes, in evaluation mode, without a trace."""
    expect_function(answer, "a backbone, images and sides")
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 24, 24, generator=generator)
    for training in (True, False):
        backbone = _backbone().train(training)
        right = _at_sizes(copy.deepcopy(backbone).eval(), images, [16, 32])
        before = copy.deepcopy(backbone.state_dict())
        found = answer(backbone, images.clone(), [16, 32])
        if not isinstance(found, Tensor):
            raise NotYet(f"the function returned {type(found).__name__}; expected a tensor.")
        if found.shape != right.shape:
            shape = tuple(found.shape)
            raise NotYet(f"found the shape {shape}, expected {tuple(right.shape)}: side by side.")
        if found.requires_grad:
            raise NotYet("the features carry a graph; compute them without one.")
        if any(not torch.equal(before[key], value) for key, value in backbone.state_dict().items()):
            raise NotYet("the backbone's running statistics have moved.")
        if backbone.training != training:
            raise NotYet("the backbone's mode is not what it was.")
        if not torch.allclose(found, right, atol=1e-4):
            raise NotYet(_what_differs(found, right, backbone, images))


def _what_differs(found: Tensor, right: Tensor, backbone: nn.Module, images: Tensor) -> str:
    if torch.allclose(found, right.roll(right.shape[1] // 2, 1), atol=1e-4):
        return "the sizes stand in another order than in sides."
    rough = _at_sizes(copy.deepcopy(backbone).eval(), images, [16, 32], antialias=False)
    if torch.allclose(found, rough, atol=1e-4):
        return "resize with antialias=True."
    return "the values differ; are the images resized to each side, in evaluation mode?"


def _backbone() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveMaxPool2d(1)
        return nn.Sequential(*layers, nn.Flatten())


def _at_sizes(
    backbone: nn.Module, images: Tensor, sides: list[int], antialias: bool = True
) -> Tensor:
    how = {"mode": "bilinear", "antialias": antialias}
    with torch.no_grad():
        parts = [backbone(F.interpolate(images, (side, side), **how)) for side in sides]
    return torch.cat(parts, dim=1)
