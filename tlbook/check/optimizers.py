"""Checks of the exercises in *optimizers and schedules*.

A reader's function runs beside a right one, on values at which the typical mistakes differ.
"""

import copy
import math
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torchvision.models import mobilenet_v3_small

from tlbook.check.grading import NotYet, exercise, expect_function

AFTER_THREE = -0.122
THREE_HINTS = {
    0.4: "that is without momentum: the velocity keeps 0.9 of the one before.",
    0.42: "that is the weight after two steps.",
    0.8: "that is the weight after one step.",
    0.8878: "PyTorch adds the whole gradient to the velocity, not a tenth of it.",
    -0.6098: "that is Nesterov's momentum; the plain one subtracts rate times velocity.",
    2.122: "the step goes against the gradient.",
    5.42: "that is the velocity after the third step; what is the weight?",
    1.122: "that is how far the weight has moved; it began at 1.",
    0.458: "each step adds the gradient to the velocity, and each step moves the weight.",
}


@exercise("A weight of 1, rate 0.1, momentum 0.9, gradient 2, three steps: answer = the weight.")
def optimizers_1(answer: Any) -> None:
    """Three steps of SGD with momentum on one weight."""
    value = _number(answer)
    if math.isclose(value, AFTER_THREE, abs_tol=6e-4):
        return
    for wrong, hint in THREE_HINTS.items():
        if math.isclose(value, wrong, abs_tol=2e-3):
            raise NotYet(hint)
    raise NotYet(f"{value:g} is not the weight: write down velocity and weight after each step.")


@exercise(
    "Write rate(step, peak, warm_up, total), a warm-up and then half a cosine. answer = rate."
)
def optimizers_2(answer: Any) -> None:
    """A schedule as a function of the step, for three lengths and peaks."""
    expect_function(answer, "step, peak, warm_up and total")
    for peak, warm_up, total in ((0.1, 10, 100), (2.0, 4, 20), (0.03, 25, 50)):
        for step in (*range(warm_up), *range(warm_up, total)):
            right = _warm_up_and_cosine(step, peak, warm_up, total)
            found = _number(answer(step, peak, warm_up, total))
            if not math.isclose(found, right, rel_tol=1e-4, abs_tol=1e-9):
                where = f"rate({step}, {peak}, {warm_up}, {total})"
                hint = _schedule_hint(found, step, peak, warm_up, total)
                raise NotYet(f"{where} is {found:.5g}: {hint}")


@exercise(
    "Repair train_one_cycle(network, batches, epochs), which trains and returns the list of rates "
    "that its steps used. answer = the function."
)
def optimizers_3(answer: Any) -> None:
    """A loop whose scheduler is stepped too early, too seldom and for too short a cycle."""
    expect_function(answer, "a network, batches and epochs")
    random = torch.Generator().manual_seed(0)
    for count, epochs in ((5, 4), (3, 7)):
        batches = [(torch.randn(8, 6, generator=random), torch.arange(8) % 3) for _ in range(count)]
        network = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
        theirs, start = copy.deepcopy(network), copy.deepcopy(network)
        right = _train_one_cycle(network, batches, epochs)
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # what a wrong order warns of, the hint explains
            try:
                found = answer(theirs, batches, epochs)
            except ValueError as error:
                if "total steps" not in str(error):
                    raise
                raise NotYet("the cycle ends before the run: how many steps are there?") from None
        _expect_rates(found, right, count, epochs)
        _expect_weights(theirs, network, start)


@exercise(
    "Write decay_groups(network, decay), which returns parameter groups for AdamW. "
    "answer = decay_groups."
)
def optimizers_4(answer: Any) -> None:
    """Two groups by shape, on a network with BatchNorm and on one with an embedding."""
    expect_function(answer, "a network and a decay")
    mixed = nn.Sequential(nn.Embedding(9, 4), nn.LayerNorm(4), nn.Linear(4, 3), nn.PReLU())
    for name, network in (
        ("MobileNetV3", mobilenet_v3_small(weights=None)),
        ("the network with an embedding", mixed),
    ):
        before = {key: value.clone() for key, value in network.state_dict().items()}
        groups = answer(network, 0.3)
        _expect_groups(name, network, groups)
        if any(not value.equal(before[key]) for key, value in network.state_dict().items()):
            raise NotYet(f"the values of {name} have changed; sort its parameters only.")


def _number(answer: Any) -> float:
    if isinstance(answer, Tensor) and answer.numel() == 1:
        return answer.item()
    if isinstance(answer, bool | str | Tensor) or not hasattr(answer, "__float__"):
        raise NotYet(f"expected a number, found {type(answer).__name__}.")
    return float(answer)


def _warm_up_and_cosine(step: int, peak: float, warm_up: int, total: int) -> float:
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * (1 + math.cos(math.pi * (step - warm_up) / (total - warm_up))) / 2


def _schedule_hint(found: float, step: int, peak: float, warm_up: int, total: int) -> str:
    right = _warm_up_and_cosine(step, peak, warm_up, total)
    if step < warm_up:
        if math.isclose(found, peak * step / warm_up, abs_tol=1e-9):
            return "the first step is step 0 and already uses a part of the peak: add 1."
        return f"in the warm-up expected peak * (step + 1) / warm_up, here {right:.5g}."
    if math.isclose(found, peak * (1 + math.cos(math.pi * step / total)) / 2, rel_tol=1e-4):
        return "the cosine begins at its peak when the warm-up ends: count from there."
    if math.isclose(found, peak * (1 + math.cos(math.pi * (step - warm_up) / total)) / 2):
        return "the cosine has total - warm_up steps, not total."
    if math.isclose(found, peak * (1 - (step - warm_up) / (total - warm_up)), rel_tol=1e-4):
        return "that is a straight line; expected half a cosine."
    if math.isclose(found, peak * math.cos(math.pi * (step - warm_up) / (total - warm_up))):
        return "a cosine runs from 1 to -1: add 1 and halve it."
    if step == warm_up:
        return "the cosine begins with the peak at step warm_up."
    return "expected half a cosine from the peak at step warm_up to 0 at step total."


def _train_one_cycle(
    network: nn.Module, batches: list[tuple[Tensor, Tensor]], epochs: int
) -> list[float]:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    scheduler = OneCycleLR(optimizer, max_lr=0.1, total_steps=epochs * len(batches))
    used = []
    for _ in range(epochs):
        for inputs, targets in batches:
            optimizer.zero_grad()
            F.cross_entropy(network(inputs), targets).backward()
            used.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return used


def _expect_rates(found: Any, right: list[float], count: int, epochs: int) -> None:
    if not isinstance(found, list | tuple):
        raise NotYet(f"expected the list of rates, your function returns {type(found).__name__}.")
    steps = f"{epochs} epochs of {count} batches are {len(right)} steps"
    if len(found) != len(right):
        raise NotYet(f"{steps}; your list has {len(found)} rates.")
    found = [_number(rate) for rate in found]
    if all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(found, right, strict=True)):
        return
    if all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(found, right[1:], strict=False)):
        raise NotYet("your first step skips the first rate: who goes first, and when do you note?")
    if len(set(found[:count])) == 1:
        raise NotYet(f"the rate is the same in all {count} batches of an epoch: step per batch.")
    if not math.isclose(max(found), 0.1, rel_tol=1e-6):
        raise NotYet(f"the highest rate is {max(found):.4f}, not 0.1: how long is the cycle?")
    raise NotYet(f"{steps}: the cycle must have as many, and each step notes the rate it uses.")


def _expect_weights(theirs: nn.Module, right: nn.Module, start: nn.Module) -> None:
    pairs = zip(theirs.parameters(), right.parameters(), start.parameters(), strict=True)
    for found, expected, untrained in pairs:
        if found.equal(untrained):
            raise NotYet("the rates are right, but the network is not trained.")
        if not torch.allclose(found, expected, atol=1e-5):
            raise NotYet(
                "the rates are right, the weights are not: one step for each batch, after "
                "zero_grad and backward, with the settings of the given function."
            )


def _expect_groups(name: str, network: nn.Module, groups: Any) -> None:
    if not isinstance(groups, list | tuple) or not all(isinstance(g, dict) for g in groups):
        raise NotYet("expected a list of dictionaries, one for each group.")
    groups = [group | {"params": _listed(group)} for group in groups]
    decays = {id(p): group.get("weight_decay") for group in groups for p in group["params"]}
    held = [id(p) for group in groups for p in group["params"]]
    names = {id(parameter): path for path, parameter in network.named_parameters()}
    if any(key not in names for key in held):
        raise NotYet(f"a group holds tensors that are not parameters of {name}.")
    if len(set(held)) < len(held):
        raise NotYet(f"{len(held) - len(set(held))} parameters of {name} are in two groups.")
    if len(held) < len(names):
        lost = next(path for key, path in names.items() if key not in decays)
        raise NotYet(f"{len(names) - len(held)} parameters of {name} are in no group: {lost}.")
    for path, parameter in network.named_parameters():
        decay, right = decays[id(parameter)], 0.3 if parameter.ndim >= 2 else 0.0
        if decay is None:
            raise NotYet(f'the group of {path} has no "weight_decay", so AdamW takes its default.')
        if not math.isclose(_number(decay), right):
            shape = tuple(parameter.shape)
            raise NotYet(f"{name}: {path} of shape {shape} has the decay {decay}, not {right}.")


def _listed(group: dict[str, Any]) -> list[Tensor]:
    if "params" not in group:
        raise NotYet('a group has no entry "params".')
    params = group["params"]
    params = [params] if isinstance(params, Tensor) else list(params)
    return [p[1] if isinstance(p, tuple) else p for p in params]
