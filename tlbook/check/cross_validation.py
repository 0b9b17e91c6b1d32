"""Checks of the exercises in *cross-validating networks*: the rule, leaks, and candidates.

Functions are tried on a handful of tiny images, on which every typical mistake counts another
number of leaks than the right way.
"""

import functools
import re
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small

from tlbook.check.grading import NotYet, exercise, expect_function
from tlbook.heads import replace_stem

CHOICES = {
    "wide": "it has the highest mean, but a cheaper one may be near enough: the standard error of "
    "folds that share their images has the factor 1/5 + 200/800, not 1/5 alone.",
    "narrow": "it is within one standard deviation of the best, not within one standard error.",
    "linear": "it is the cheapest of all, and far more than one standard error below the best.",
}
CASES = {
    "a": (True, "crops of one photograph are on both sides."),
    "b": (False, "the validation images are as they were, and no patient is on both sides."),
    "c": (True, "the choice has seen the labels of the validation images."),
    "d": (True, "the highest of several noisy epochs is too high on average: it was chosen."),
    "e": (False, "the backbone was not fitted to any of these images."),
    "f": (False, "no film is on both sides."),
}
WIDTHS = (0.25, 0.5, 1.0)


@exercise(
    "Which of the four candidates does the one-standard-error rule take, by parameters? "
    "answer = its name, a text."
)
def cross_validation_1(answer: Any) -> None:
    """The cheapest within one corrected standard error."""
    if not isinstance(answer, str):
        raise NotYet(f"expected a name, found {type(answer).__name__}.")
    name = answer.strip().lower()
    if name != "middle":
        raise NotYet(CHOICES.get(name, f"{answer!r} is none of {', '.join(CHOICES)}, middle."))


@exercise(
    "In which of the cases a to f is the accuracy too high, in expectation? "
    'answer = a list of letters, such as ["b"].'
)
def cross_validation_2(answer: Any) -> None:
    """What leaks, and what does not."""
    if isinstance(answer, str):
        answer = re.findall(r"[a-zA-Z]", re.sub(r"\band\b", " ", answer))
    if not isinstance(answer, list | tuple | set | frozenset):
        raise NotYet(f"expected a list of letters, found {type(answer).__name__}.")
    letters = {str(letter).strip(" ().").lower() for letter in answer}
    if unknown := sorted(letters - CASES.keys()):
        raise NotYet(f"{unknown[0]!r} is none of the cases a to f.")
    if not letters:
        raise NotYet("in some of the cases it is.")
    for letter, (leaks, reason) in CASES.items():
        if (letter in letters) != leaks:
            raise NotYet(f"{letter}: {reason}")


@exercise(
    "Write leaked(images, train, val), which returns how many positions in val show an image that "
    "also stands at a position in train. answer = the function."
)
def cross_validation_3(answer: Any) -> None:
    """Validation images with an equal image in training, whatever their positions."""
    expect_function(answer, "images and two lists of positions")
    for train, val, right, hint in TRIALS:
        found = answer(_images(), list(train), list(val))
        if getattr(found, "ndim", None) == 0 and hasattr(found, "item"):
            found = found.item()
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise NotYet(f"the function returned {type(found).__name__}; expected a number.")
        if found != right:
            raise NotYet(f"train {train}, val {val}: {found} is not right; {hint}")


@exercise(
    "Give mobilenet_v3_small in three widths, for grey images and ten classes, as candidates. "
    'answer = a dictionary with the keys "0.25", "0.5" and "1.0".'
)
def cross_validation_4(answer: Any) -> None:
    """Functions that build a new network at each call, each with its own width."""
    if not isinstance(answer, dict):
        raise NotYet(f"expected a dictionary, found {type(answer).__name__}.")
    makers = {_width(key): make for key, make in answer.items()}
    if makers.keys() != set(WIDTHS):
        raise NotYet(f"expected the keys '0.25', '0.5' and '1.0', found {list(answer)}.")
    for width in WIDTHS:
        if isinstance(makers[width], nn.Module):
            raise NotYet(
                f"{width}: that is a network, which the first fold would train for the others; "
                "expected a function that builds one."
            )
        if not callable(makers[width]):
            raise NotYet(f"{width}: expected a function, found {type(makers[width]).__name__}.")
    with torch.random.fork_rng(devices=[]):
        for width in WIDTHS:
            first, second = makers[width](), makers[width]()
            _check_network(width, first)
            if first is second:
                raise NotYet(f"{width}: the function returns the same network each time.")


def _width(key: Any) -> float | None:
    try:
        return float(key)
    except (TypeError, ValueError):
        return None


def _check_network(width: float, model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise NotYet(f"{width}: the function returned {type(model).__name__}, not a network.")
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    heads = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not convs or not heads:
        raise NotYet(f"{width}: that is no mobilenet_v3_small.")
    if convs[0].in_channels != 1:
        raise NotYet(f"{width}: its stem takes {convs[0].in_channels} channels; expected 1.")
    if heads[-1].out_features != 10:
        raise NotYet(f"{width}: it has {heads[-1].out_features} outputs; expected 10.")
    size = _size(model)
    if size != _right_size(width):
        others = [other for other in WIDTHS if size == _right_size(other)]
        if others:
            raise NotYet(
                f"{width}: it is as wide as {others[0]}. Did it get width_mult=? And a lambda "
                "in a loop looks its value up when it is called, after the loop."
            )
        raise NotYet(f"{width}: it has {size:,} parameters, which no width of the three has.")


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@functools.cache
def _right_size(width: float) -> int:
    with torch.random.fork_rng(devices=[]):
        model = mobilenet_v3_small(weights=None, num_classes=10, width_mult=width)
        return _size(replace_stem(model, in_channels=1))


def _images() -> Tensor:
    """Return eight images `(8, 1, 2, 2)`: 1, 5 and 6 are equal, 4 mirrors 3, 7 is nearly 2."""
    images = torch.arange(32, dtype=torch.float32).reshape(8, 1, 2, 2) / 32
    images[5] = images[6] = images[1]
    images[4] = images[3].flip(-1)
    images[7] = images[2] + 1e-4
    return images


TRIALS = [
    ([0, 1, 2], [3, 5], 1, "image 5 is equal to image 1."),
    ([0, 2], [1, 5], 0, "1 and 5 are equal, and both in val."),
    ([1, 5, 0], [6], 1, "count a position of val once, however many copies it has in train."),
    ([1], [5, 6, 3], 2, "count the positions of val, each of which was asked about."),
    ([3, 2], [4, 7], 0, "equal in every pixel: 4 is mirrored, and 7 differs a little."),
]
