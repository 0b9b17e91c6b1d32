"""Checks of the exercises in *cats and dogs*: errors, order, groups, shares, a frozen BatchNorm."""

import math
import re
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small, resnet18

from tlbook.check.grading import NotYet, exercise, expect_function

# What must stand before what, and why.
BEFORE = [
    ("c", "b", "features are what arrives at the head, so the head is cut off first."),
    ("b", "f", "the linear head is fitted to features, so they come first."),
    ("f", "e", "a head has to be fitted before it can take its place."),
    ("e", "a", "an optimizer made before the new head is there does not hold its parameters."),
    ("a", "d", "training needs an optimizer."),
]


@exercise(
    "How many of 300 photographs may be judged wrongly at most, for an accuracy of at least 0.99? "
    "answer = a number."
)
def cats_and_dogs_1(answer: Any) -> None:
    """From an accuracy to a count of errors."""
    if getattr(answer, "ndim", None) == 0 and hasattr(answer, "item"):
        answer = answer.item()
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        raise NotYet(f"expected a number, found {type(answer).__name__}.")
    if abs(answer - 3) > 1e-9:
        hints = {297: "those are the right ones.", 2: "one more still gives 0.99 exactly."}
        if 0 < answer < 1:
            raise NotYet(f"{answer:g} is a share; a share of 300 photographs is how many?")
        raise NotYet(hints.get(answer, f"{answer:g} of 300 are {1 - answer / 300:.4f} right."))


@exercise(
    'Bring the steps a to f into an order that works. answer = a list of letters, such as ["a"].'
)
def cats_and_dogs_2(answer: Any) -> None:
    """Head first, then whole."""
    if isinstance(answer, str):
        answer = re.findall(r"[a-zA-Z]", answer)
    if not isinstance(answer, list | tuple):
        raise NotYet(f"expected a list of letters, found {type(answer).__name__}.")
    letters = [str(letter).strip(" ().").lower() for letter in answer]
    if sorted(letters) != list("abcdef"):
        raise NotYet(f"expected each of the letters a to f once, found {len(letters)} letters.")
    for first, second, reason in BEFORE:
        if letters.index(first) > letters.index(second):
            raise NotYet(f"{second} before {first}: {reason}")


@exercise(
    "Write a function of (logits, zero, one) that returns the log-odds of a class in one against "
    "a class in zero. answer = the function."
)
def cats_and_dogs_3(answer: Any) -> None:
    """Two classes out of many: probabilities are summed, not logits."""
    expect_function(answer, "logits and two lists of class indices")
    zero, one = [1, 2], [0, 4, 5, 6]
    logits = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    for name, shown in {"small logits": logits, "logits near 1,000": logits + 1_000}.items():
        found = answer(shown.clone(), list(zero), list(one))
        if not isinstance(found, Tensor):
            raise NotYet(f"the function returned {type(found).__name__}; expected a tensor.")
        if found.shape != (5,):
            raise NotYet(f"found the shape {tuple(found.shape)}, expected (5,), one an image.")
        if not torch.isfinite(found).all():
            raise NotYet(
                f"{name}: some of the values are not finite; exp() overflows, logsumexp not."
            )
        if not torch.allclose(found, logits[:, one].logsumexp(1) - logits[:, zero].logsumexp(1),
                              atol=1e-2):  # fmt: skip
            raise NotYet(f"{name}: {_what_it_is(found, shown, zero, one)}")


def _what_it_is(found: Tensor, logits: Tensor, zero: list[int], one: list[int]) -> str:
    right = logits[:, one].logsumexp(1) - logits[:, zero].logsumexp(1)
    p = logits.softmax(1)
    share = p[:, one].sum(1)
    typical = {
        "the sign: classes in one speak for more than 0.": -right,
        "that adds logits; add probabilities.": logits[:, one].sum(1) - logits[:, zero].sum(1),
        "that is a mean of logits; add probabilities.": logits[:, one].mean(1)
        - logits[:, zero].mean(1),
        "that takes the largest of each group alone.": logits[:, one].amax(1)
        - logits[:, zero].amax(1),
        "that is a ratio; its logarithm is asked for.": p[:, one].sum(1) / p[:, zero].sum(1),
        "that is against all other classes; take those in zero alone.": torch.logit(share),
        "that leaves the classes in zero out.": share.log(),
        "that is a difference of probabilities.": p[:, one].sum(1) - p[:, zero].sum(1),
    }
    hints = [hint for hint, value in typical.items() if torch.allclose(found, value, atol=1e-2)]
    return hints[0] if hints else "those are not the log-odds of the two groups."


@exercise(
    "Write a function of (odds, was, now) that returns log-odds for a class 1 whose share has "
    "become now. answer = the function."
)
def cats_and_dogs_4(answer: Any) -> None:
    """Log-odds for other shares of the classes."""
    expect_function(answer, "log-odds and two shares")
    odds = torch.tensor([-2.0, 0.0, 0.5, 3.0])
    for was, now in ((118 / 123, 0.5), (0.5, 0.1), (0.2, 0.6), (0.3, 0.3)):
        found = answer(odds.clone(), was, now)
        if not isinstance(found, Tensor):
            raise NotYet(f"the function returned {type(found).__name__}; expected a tensor.")
        if found.shape != odds.shape:
            raise NotYet(f"found the shape {tuple(found.shape)}, expected one number an image.")
        old, new = torch.logit(torch.tensor([was, now], dtype=torch.double)).tolist()
        typical = {
            "the old lean is still in it: take it off.": odds + new,
            "put your own shares in as well.": odds - old,
            "the signs: take off the old, add the new.": odds + old - new,
            "the share itself is no log-odds: divide it by that of class 0.": odds
            + math.log(now / was),
            "that is a probability; log-odds are asked for.": torch.sigmoid(odds - old + new),
        }
        if not torch.allclose(found, odds - old + new, atol=1e-3):
            hints = [h for h, value in typical.items() if torch.allclose(found, value, atol=1e-3)]
            other = f"from {was:.2f} to {now:.2f} log-odds of 0 become {new - old:.2f}."
            raise NotYet(hints[0] if hints else other)


@exercise(
    "Write a function of a network that returns it ready to train as a whole, with every BatchNorm "
    "fixed. answer = the function."
)
def cats_and_dogs_5(answer: Any) -> None:
    """Everything trains but BatchNorm, whose parameters and statistics stay."""
    expect_function(answer, "a network")
    for build in (resnet18, mobilenet_v3_small):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = build(weights=None, num_classes=2)
            found = answer(network)
            if not isinstance(found, nn.Module):
                raise NotYet(f"the function returned {type(found).__name__}; expected the network.")
            _expect_still(found, network)


def _expect_still(found: nn.Module, network: nn.Module) -> None:
    norms = {n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    inside = {f"{n}.{k}" for n in norms for k in ("weight", "bias")}
    trains = {n for n, p in found.named_parameters() if p.requires_grad}
    if trains & inside:
        raise NotYet(f"{min(trains & inside)} belongs to BatchNorm and still trains.")
    if missing := {n for n, _ in network.named_parameters()} - inside - trains:
        raise NotYet(f"{min(missing)} does not train; it is no part of BatchNorm.")
    before = {n: b.clone() for n, b in found.named_buffers()}
    found.train()
    with torch.no_grad():
        found(torch.rand(2, 3, 32, 32))
    moved = [n for n, b in found.named_buffers() if not torch.equal(b, before[n])]
    if moved:
        raise NotYet(f"after train() and one batch {moved[0]} has moved; gradients alone are off.")
