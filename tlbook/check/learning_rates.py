"""Checks of the exercises in *learning rates by layer*: groups, schedules, layers opened later.

Functions are tried on networks with random weights; what is graded is which parameters an
optimizer holds, and with which settings.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn, optim
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR
from torchvision.models import densenet121, mobilenet_v3_small

from tlbook.check.grading import NotYet, exercise, expect_function

DECAYED = 0.01 * 0.8**6
DECAYED_MISTAKES = {
    0.01 * 0.8**3: "count from the output, and each of the two blocks of a stage by itself.",
    0.01 * 0.8**5: "one factor is missing: count every step from fc down to layer2.0.",
    0.01 * 0.8**7: "one factor too many: fc itself gets the full rate.",
    0.8**6: "that is the factor alone; multiply lr by it.",
    0.01: "that is the rate of fc alone.",
}


@exercise(
    "With lr=0.01 and layer_decay=0.8, what is the rate of layer2.0 in a ResNet-18? "
    "answer = a number."
)
def learning_rates_1(answer: Any) -> None:
    """A rate of layer-wise decay, counted from the output."""
    try:
        number = float(answer)
    except (TypeError, ValueError, RuntimeError):
        raise NotYet(f"expected a number, found {type(answer).__name__}.") from None
    if math.isclose(number, DECAYED, rel_tol=0.01):
        return
    for wrong, hint in DECAYED_MISTAKES.items():
        if math.isclose(number, wrong, rel_tol=0.005):
            raise NotYet(hint)
    raise NotYet(f"{number:g} is not the right value; how many layers lie behind layer2.0?")


@exercise(
    "Write a function of (model, optimizer) that returns the rate of every parameter by its name, "
    "None for one that the optimizer does not hold. answer = the function."
)
def learning_rates_2(answer: Any) -> None:
    """The groups of an optimizer, read from the side of the model."""
    expect_function(answer, "a model and an optimizer")
    model = densenet121(weights=None, num_classes=3)
    named = dict(model.named_parameters())
    right = {name: 0.001 if ".denseblock" in name else None for name in named}
    right |= {"classifier.weight": 0.01, "classifier.bias": 0.01}
    groups = [
        {"params": [p for n, p in named.items() if right[n] == rate], "lr": rate}
        for rate in (0.001, 0.01)
    ]
    _expect_rates(answer(model, optim.SGD(groups)), right)
    every = optim.SGD(model.parameters(), lr=0.1)
    _expect_rates(answer(model, every), dict.fromkeys(named, 0.1))
    every.param_groups[0]["lr"] = 0.05  # as a schedule does
    _expect_rates(answer(model, every), dict.fromkeys(named, 0.05))
    # A copy has parameters of the same names and shapes, which are other parameters.
    stranger = optim.SGD(densenet121(weights=None, num_classes=3).parameters(), lr=0.1)
    _expect_rates(answer(model, stranger), dict.fromkeys(named))


@exercise(
    "Write a function of (optimizer, steps) that returns a OneCycleLR in which every group peaks "
    "at its own rate. answer = the function."
)
def learning_rates_3(answer: Any) -> None:
    """A schedule that keeps the rates of the groups apart."""
    expect_function(answer, "an optimizer and a number of steps")
    for rates in ([0.001, 0.01, 0.5], [0.3]):
        optimizer = optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "lr": r} for r in rates])
        scheduler = answer(optimizer, 50)
        if not isinstance(scheduler, OneCycleLR):
            raise NotYet(f"the function returned {type(scheduler).__name__}; expected OneCycleLR.")
        if scheduler.optimizer is not optimizer:
            raise NotYet("the schedule moves another optimizer than the one that came in.")
        if scheduler.total_steps != 50:
            raise NotYet(f"the schedule has {scheduler.total_steps} steps; expected 50.")
        peaks = _peaks(optimizer, scheduler)
        if not all(math.isclose(a, b, rel_tol=0.01) for a, b in zip(peaks, rates, strict=True)):
            shown = ", ".join(f"{peak:g}" for peak in peaks)
            wanted = ", ".join(f"{rate:g}" for rate in rates)
            raise NotYet(f"groups with the rates {wanted} peak at {shown}.")


@exercise(
    "Write a function of (model, optimizer, name, rate) that opens a part of the model and has it "
    "trained by the same optimizer. answer = the function."
)
def learning_rates_4(answer: Any) -> None:
    """A layer opened in the middle of a run, without losing the optimizer's memory."""
    expect_function(answer, "a model, an optimizer, a name and a rate")
    model = mobilenet_v3_small(weights=None, num_classes=3).requires_grad_(False)
    model.classifier.requires_grad_(True)
    optimizer = optim.SGD(model.classifier.parameters(), lr=0.1, momentum=0.9)
    inputs = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model(inputs).square().mean().backward()
    optimizer.step()
    kept = {p: held["momentum_buffer"] for p, held in optimizer.state.items()}
    for name, rate in (("features.12", 0.01), ("features.11", 0.001)):
        answer(model, optimizer, name, rate)
        _expect_opened(model, optimizer, name, rate)
    if any(optimizer.state.get(p, {}).get("momentum_buffer") is not b for p, b in kept.items()):
        raise NotYet("the head has lost its momentum; add to the optimizer, do not make a new one.")
    head = model.classifier[0].weight
    if [g["lr"] for g in optimizer.param_groups if any(p is head for p in g["params"])] != [0.1]:
        raise NotYet("the head had the rate 0.1 and has another one now.")


def _expect_rates(found: Any, right: dict[str, float | None]) -> None:
    if not isinstance(found, Mapping):
        raise NotYet(f"the function returned {type(found).__name__}; expected a dictionary.")
    missing = [name for name in right if name not in found]
    if missing:
        raise NotYet(f"{len(missing)} of {len(right)} names are missing, such as {missing[0]}.")
    extra = [key for key in found if key not in right]
    if extra:
        raise NotYet(f"{extra[0]!r} is not the name of a parameter of this model.")
    for name, rate in right.items():
        if rate is None and found[name] is not None:
            raise NotYet(f"the optimizer does not hold {name}; expected None for it.")
        if rate is not None and found[name] != rate:
            raise NotYet(f"{name} has another rate: read it from its group at every call.")


def _expect_each_once(model: nn.Module, optimizer: Optimizer) -> None:
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    for name, parameter in model.named_parameters():
        times = held.count(id(parameter))
        if parameter.requires_grad and times != 1:
            raise NotYet(f"{name} is trainable and {times} times in the groups; expected once.")
        if not parameter.requires_grad and times:
            raise NotYet(f"{name} is frozen and in a group; leave it out.")


def _peaks(optimizer: Optimizer, scheduler: OneCycleLR) -> list[float]:
    """Return the highest rate of every group while the schedule runs to its end."""
    used = []
    for _ in range(scheduler.total_steps):
        used.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        if len(used) < scheduler.total_steps:
            scheduler.step()
    return [max(rates) for rates in zip(*used, strict=True)]


def _expect_opened(model: nn.Module, optimizer: Optimizer, name: str, rate: float) -> None:
    part = model.get_submodule(name)
    if not all(p.requires_grad for p in part.parameters()):
        raise NotYet(
            f"after opening {name} some of its parameters are still frozen; "
            "unfreeze undoes freeze alone, and here requires_grad was set by hand."
        )
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    absent = [n for n, p in part.named_parameters() if id(p) not in rates]
    if absent:
        raise NotYet(f"{name}.{absent[0]} is not held by the optimizer that came in.")
    found = {rates[id(p)] for p in part.parameters()}
    if found != {rate}:
        raise NotYet(f"{name} has the rate {max(found):g}; expected {rate:g}.")
    _expect_each_once(model, optimizer)
