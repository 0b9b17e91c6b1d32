"""Checks of the exercises in *better at the end*: averages of weights, views, calibration."""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tlbook.check.grading import NotYet, exercise, expect_function

CASES = (
    ("two bins of two examples", [0.9, 0.8, 0.6, 0.6], [1, 0, 1, 1], 4, 0.375),
    ("bins with different numbers of examples", [0.9] * 3 + [0.6], [1, 1, 1, 0], 5, 0.225),
    ("a forecaster who is certain and right", [1.0, 1.0], [1, 1], 10, 0.0),
    ("a forecaster who is certain and wrong", [1.0, 1.0], [0, 0], 10, 1.0),
)

WRONG = {  # what typical mistakes give for the first two cases
    0.1875: "; weigh each gap with its examples instead of dividing by the number of bins",
    0.35: "; a bin of three examples weighs three times as much as a bin of one",
    0.025: "; take the distance in each bin before you average, not one over all examples",
}


@exercise(
    "Which share of an average with decay 0.998 is the copy it was started from, after 400 "
    "updates? answer = a number between 0 and 1."
)
def better_at_the_end_1(answer: Any) -> None:
    """What is left of the beginning."""
    if getattr(answer, "ndim", None) == 0 and hasattr(answer, "item"):
        answer = answer.item()
    if not isinstance(answer, int | float):
        raise NotYet(f"expected a number, found {type(answer).__name__}.")
    if abs(answer - 0.5510) < 0.006:
        raise NotYet("that is what has come in since; the question is what is left.")
    if abs(answer - 0.2) < 0.006:
        raise NotYet("each update keeps 0.998 of what was there, which is not 1 - 400 × 0.002.")
    if abs(answer - 44.9) < 0.6:
        raise NotYet("that is in percent; answer with a share between 0 and 1.")
    if abs(answer - 0.4490) > 0.006:
        raise NotYet(f"{answer} is not that share; each update multiplies what is left by 0.998.")


@exercise(
    "Write a function of (average, network, decay) that moves parameters and floating-point "
    "buffers of average towards those of network and copies integer ones. answer = the function."
)
def better_at_the_end_2(answer: Any) -> None:
    """An exponential moving average of everything that a network is."""
    expect_function(answer, "an average, a network and a decay")
    average, network = _net(0), _net(1)
    before, theirs = copy.deepcopy(average.state_dict()), copy.deepcopy(network.state_dict())
    held = list(average.parameters())
    answer(average, network, 0.9)
    now = average.state_dict()
    if any(not value.equal(theirs[name]) for name, value in network.state_dict().items()):
        raise NotYet("network itself has changed; only average may.")
    if any(own is not old for own, old in zip(average.parameters(), held, strict=True)):
        raise NotYet("average has new Parameter objects; change the old ones in place.")
    for name, old in before.items():
        if old.is_floating_point():
            _expect_moved(name, now[name], old, theirs[name])
        elif not now[name].equal(theirs[name]):
            raise NotYet(
                f"{name} holds {now[name].item()}, the network's is {theirs[name].item()}."
            )
    if any(p.grad_fn is not None or not p.requires_grad for p in held):
        raise NotYet("the parameters of average have a graph, or no longer require gradients.")


@exercise(
    "Write a function of (network, images, views) that returns the mean of the network's "
    "probabilities over the views, and leaves every mode as it was. answer = the function."
)
def better_at_the_end_3(answer: Any) -> None:
    """Test-time augmentation, in the right mode."""
    expect_function(answer, "a network, images and views")
    network = _net(0).train()
    network[1].eval()
    modes = [module.training for module in network.modules()]
    state = copy.deepcopy(network.state_dict())
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    views = [lambda x: x, lambda x: 4 * x.flip(3), lambda x: x.flip(2)]
    found = answer(network, images, views)
    if not isinstance(found, Tensor) or found.shape != (6, 4):
        what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise NotYet(f"the function returned {what}; expected a tensor (6, 4).")
    if found.requires_grad:
        raise NotYet("the result has a graph; compute it without gradients.")
    if any(not value.equal(state[name]) for name, value in network.state_dict().items()):
        raise NotYet("weights or running statistics have moved: the network was in training mode.")
    if [module.training for module in network.modules()] != modes:
        raise NotYet("some module is not in the mode that it was in before.")
    with torch.no_grad():
        outputs = [copy.deepcopy(network).eval()(view(images)) for view in views]
    if torch.allclose(found, torch.stack(outputs).mean(0).softmax(1), atol=1e-4):
        raise NotYet("that is the softmax of mean logits; average the probabilities.")
    each = torch.stack([output.softmax(1) for output in outputs])
    if torch.allclose(found, each[0], atol=1e-4):
        raise NotYet("that is the answer to the first view alone.")
    if torch.allclose(found, each.sum(0), atol=1e-4):
        raise NotYet("that is the sum over the views; divide by their number.")
    if not torch.allclose(found, each.mean(0), atol=1e-4):
        raise NotYet("these are not the mean probabilities in evaluation mode.")


@exercise(
    "Write a function of (p, labels, bins), arrays (N, classes) and (N,), that returns the "
    "expected calibration error of the highest probability. answer = the function."
)
def better_at_the_end_4(answer: Any) -> None:
    """The expected calibration error with more than two classes."""
    expect_function(answer, "probabilities, labels and bins")
    for name, confidence, is_right, bins, right in CASES:
        top = np.array(confidence)
        rest = (1 - top) / 2
        p = np.stack([rest, top, rest], axis=1)
        labels = np.where(np.array(is_right) == 1, 1, 2)
        found = answer(p, labels, bins)
        if getattr(found, "ndim", None) == 0:
            found = float(found)
        if not isinstance(found, int | float):
            raise NotYet(f"the function returned {type(found).__name__}; expected a number.")
        if not abs(found - right) < 1e-6:
            near = (hint for value, hint in WRONG.items() if abs(found - value) < 1e-6)
            raise NotYet(f"{name}: found {found:.4f}, expected {right:.4f}{next(near, '')}.")


def _net(seed: int) -> nn.Module:
    """Return a network whose weights, statistics and count of batches differ by the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)
        net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
        with torch.no_grad():
            net[1].running_mean.normal_()
            net[1].running_var.uniform_(0.5, 2)
            net[1].num_batches_tracked.fill_(10 + 7 * seed)
            net[6].weight.mul_(5)
        return net


def _expect_moved(name: str, now: Tensor, old: Tensor, theirs: Tensor) -> None:
    if torch.allclose(now, 0.9 * old + 0.1 * theirs, atol=1e-6):
        return
    if torch.equal(now, old):
        raise NotYet(f"{name} has not moved.")
    if torch.equal(now, theirs):
        raise NotYet(f"{name} is a copy of the network's; only the share 1 - decay comes from it.")
    if torch.allclose(now, 0.1 * old + 0.9 * theirs, atol=1e-6):
        raise NotYet(f"{name}: decay is the share that stays, and here it is the share that comes.")
    raise NotYet(f"{name} is not decay × average + (1 - decay) × network.")
