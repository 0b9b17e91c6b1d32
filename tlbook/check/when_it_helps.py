"""Checks of the exercises in *when transfer helps*: fair comparisons, intervals, lent encoders.

Functions are tried on made-up accuracies and on small networks with random weights.
"""

import copy
import re
from typing import Any

import numpy as np
import torch
from torch import nn

from tlbook.check.grading import NotYet, exercise, expect_function

FAIR = {
    "a": (False, "a learning rate that was tuned for one way is not equal care for both."),
    "b": (True, "draws and steps are equal, and each way has a rate of its own, fairly chosen."),
    "c": (False, "whoever has the noisier test curve gains more from its best epoch."),
    "d": (False, "the two differ in the network, not in its weights alone."),
    "e": (True, "pairs make it sharper, not fair; with 200 seeds unpaired means will do."),
    "f": (False, "then it has seen the answers; that is leakage, not transfer."),
}
FIRST = [0.81, 0.74, 0.79, 0.86, 0.77]
SECOND = [0.78, 0.73, 0.74, 0.84, 0.78]
LOW, HIGH = -0.007764, 0.047764  # scipy.stats.ttest_rel(FIRST, SECOND).confidence_interval()


@exercise(
    "In which of the cases a to f does the difference belong to the transferred weights? "
    'answer = a list of letters, such as ["a"].'
)
def when_it_helps_1(answer: Any) -> None:
    """What must be equal in a comparison."""
    if isinstance(answer, str):
        words = re.findall(r"[a-z]+", answer.lower())
        answer = [letter for word in words if word != "and" for letter in word]
    if not isinstance(answer, list | tuple | set | frozenset):
        raise NotYet(f"expected a list of letters, found {type(answer).__name__}.")
    letters = {str(letter).strip(" ().").lower() for letter in answer}
    if unknown := sorted(letters - FAIR.keys()):
        raise NotYet(f"{unknown[0]!r} is none of the cases a to f.")
    if not letters:
        raise NotYet("some of the cases are fair.")
    for letter, (fair, reason) in FAIR.items():
        if (letter in letters) != fair:
            raise NotYet(f"{letter}: {reason}")


@exercise(
    "Write a function of (first, second) that returns low and high of the 95% interval of the mean "
    "paired difference. answer = the function."
)
def when_it_helps_2(answer: Any) -> None:
    """Student's interval of a paired difference."""
    expect_function(answer, "two lists of accuracies")
    low, high = _pair(answer(list(FIRST), list(SECOND)))
    if np.allclose((low, high), (LOW, HIGH), atol=1e-4):
        return
    half = (high - low) / 2
    if np.allclose((low, high), (-HIGH, -LOW), atol=1e-4):
        raise NotYet("that is second minus first.")
    if not np.isclose((low + high) / 2, 0.02, atol=1e-6):
        raise NotYet("the middle of the interval is not the mean difference.")
    differences = np.subtract(FIRST, SECOND)
    error = differences.std(ddof=1) / np.sqrt(5)
    hints = [
        (1.96 * error, "1.96 is for many seeds; five need Student's t with 4 degrees of freedom."),
        (2.5706 * error, "five differences have 4 degrees of freedom."),
        (2.7764 * differences.std() / np.sqrt(5), "the standard deviation divides by n - 1."),
        (differences.std(ddof=1), "that is the standard deviation of the differences."),
        (error, "that is one standard error; an interval of 95% is wider."),
        (2.1318 * error, "that is the interval of 90%: 2.5% are left on either side of 95%."),
        (2.7764 * differences.std(ddof=1), "divide by the root of the number of seeds."),
    ]
    for width, hint in hints:
        if np.isclose(half, width, rtol=1e-3):
            raise NotYet(hint)
    raise NotYet("the middle is right, the width is not: take the spread of the differences.")


@exercise(
    "Write a function of (transfer, scratch) that returns the numbers of images at which the 95% "
    "interval of transfer - scratch lies below 0. answer = the function."
)
def when_it_helps_3(answer: Any) -> None:
    """Negative transfer is an interval below zero."""
    expect_function(answer, "two dictionaries")
    scratch = {n: [0.50, 0.60, 0.55, 0.65, 0.58] for n in (200, 5, 50, 20)}
    shifts = {
        5: [0.1, 0.12, 0.09, 0.11, 0.1],  # a gain
        20: [-0.1, 0.08, -0.09, 0.05, -0.04],  # a mean below 0, and noise
        50: [-0.02, -0.03, -0.02, -0.01, -0.02],  # small and sure
        200: [-0.05, -0.06, -0.07, -0.05, -0.06],
    }
    transfer = {n: list(np.add(scratch[n], shifts[n])) for n in scratch}
    found = answer(copy.deepcopy(transfer), copy.deepcopy(scratch))
    if not isinstance(found, list | tuple | np.ndarray):
        raise NotYet(f"the function returned {type(found).__name__}; expected a list.")
    found = [int(n) for n in found]
    hints = {
        (20, 50, 200): "at 20 the mean is below 0, and the interval is not.",
        (5,): "that is where transfer gains.",
        (5, 20, 50, 200): "that is all of them.",
        (200,): "at 50 the difference is small, and surely below 0: pair the seeds.",
        (): "somewhere it harms; pair the seeds, or the spread of the draws hides it.",
    }
    if found != [50, 200]:
        numbers = tuple(sorted(found))
        usual = hints.get(numbers, f"{found} is not the list of those numbers.")
        right = "the right numbers; return them ascending."
        raise NotYet(right if numbers == (50, 200) else usual)


@exercise(
    "Write a function of (autoencoder, network) that copies the encoder over, freezes it for good "
    "and returns the network. answer = the function."
)
def when_it_helps_4(answer: Any) -> None:
    """An encoder copied, frozen, and shared with nobody."""
    expect_function(answer, "an auto-encoder and a network")
    giver, network = _nets()
    given, head = copy.deepcopy(giver.state_dict()), network.head.weight.detach().clone()
    mode = giver.training
    found = answer(giver, network)
    if found is not network:
        raise NotYet("return the network itself.")
    own = network.encoder.state_dict()
    for key, value in own.items():
        if not torch.equal(value, given[f"encoder.{key}"]):
            kind = "statistics" if "running" in key else "weights"
            raise NotYet(f"the {kind} of encoder.{key} are not those of the auto-encoder.")
    if not torch.equal(network.head.weight, head):
        raise NotYet("the head has changed.")
    shared = {p.data_ptr() for p in giver.parameters()} & {p.data_ptr() for p in own.values()}
    if shared:
        raise NotYet("the two share their weights; copy them.")
    if not all(p.requires_grad for p in giver.parameters()) or giver.training != mode:
        raise NotYet("the auto-encoder is frozen now, or in another mode; leave it as it was.")
    if not network.head.weight.requires_grad:
        raise NotYet("the head is frozen too.")
    _train_a_little(network)
    for key, value in network.encoder.state_dict().items():
        if not torch.equal(value, given[f"encoder.{key}"]):
            raise NotYet(f"encoder.{key} has moved in training; freeze gradients and statistics.")


def _pair(found: Any) -> tuple[float, float]:
    values = np.asarray(found, dtype=float).ravel() if found is not None else np.array([])
    if len(values) != 2:
        raise NotYet("expected a pair (low, high).")
    return float(values[0]), float(values[1])


class _Net(nn.Module):
    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        layers = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
        self.encoder, self.head = nn.Sequential(*layers), last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.encoder(x)
        return self.head(x.flatten(1) if isinstance(self.head, nn.Linear) else x)


def _nets() -> tuple[nn.Module, nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        giver, network = _Net(nn.Conv2d(4, 1, 3, padding=1)), _Net(nn.Linear(4 * 36, 3))
        giver.train()(torch.rand(8, 1, 6, 6))  # moves the running statistics
    return giver, network


def _train_a_little(network: nn.Module) -> None:
    """Train as anybody would: every parameter in the optimizer, with weight decay."""
    images = torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        network.train()
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()
