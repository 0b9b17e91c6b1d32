"""Checks of the exercises in *not forgetting*: what has a start, and how it is held there."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small

from tlbook.check.grading import NotYet, exercise, expect, expect_function


@exercise(
    "How many entries of mobilenet_v3_small's state_dict does L2-SP pull, after its last layer "
    "was replaced for five classes? answer = a number."
)
def not_forgetting_1(answer: Any) -> None:
    """Parameters with a start: no buffers, and not the new layer."""
    with torch.device("meta"):
        network = mobilenet_v3_small(weights=None)
    names = [name for name, _ in network.named_parameters()]
    entries = len(network.state_dict())
    old = [name for name in names if not name.startswith("classifier.3.")]
    numbers = sum(p.numel() for name, p in network.named_parameters() if name in old)
    hints = {
        str(len(names)): "the new layer has no starting point; leave its two tensors out.",
        str(entries): "that is every entry; buffers are pulled by nothing, and the head is new.",
        str(entries - 2): "running statistics are among them, and no penalty reaches buffers.",
        str(len(names) - 1): "the new layer has a weight and a bias, and neither has a start.",
        str(len(names) - 4): "only the last layer is new; the layer before it has a start.",
        str(numbers): "those are the numbers in them; count the entries.",
    }
    expect(_number(answer), len(old), **{f"_{key}": hint for key, hint in hints.items()})


@exercise(
    "How far from its start is a weight that was 1 away, after ten decoupled steps of L2-SP with "
    "strength 2, learning rate 0.05 and no gradient? answer = a number, to two decimals."
)
def not_forgetting_2(answer: Any) -> None:
    """Each step leaves nine tenths of the distance."""
    number = _number(answer)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise NotYet(f"expected a number, found {type(answer).__name__}.")
    hints = {
        0.60: "that leaves 0.95 at each step; the share is learning rate times strength.",
        0.65: "that is how far it has come; the question is what is left.",
        0.37: "that is the limit of many tiny steps; ten steps leave a little less.",
        0.0: "each step takes a tenth of what is left, not a tenth of the first distance.",
        0.9: "that is after one step.",
        0.9**9: "that is after nine steps.",
        0.9**11: "that is after eleven steps.",
        0.8**10: "that leaves 0.8 at each step; the half in the formula cancels the square's two.",
    }
    if not math.isclose(number, 0.9**10, abs_tol=0.006):
        near = [hint for value, hint in hints.items() if math.isclose(number, value, abs_tol=0.004)]
        raise NotYet((near or [f"{number} is not what is left; take the steps one by one."])[0])


@exercise(
    "Write a function of (model, start, strength) that returns the L2-SP penalty over trainable "
    "parameters that start has in the same shape. answer = the function."
)
def not_forgetting_3(answer: Any) -> None:
    """The penalty's value and its gradients, with a new head and a frozen layer."""
    expect_function(answer, "(model, start, strength)")
    model = _network()
    start = _copied(model)
    if not math.isclose(_value(answer, model, start, "at the start"), 0.0, abs_tol=1e-9):
        raise NotYet("at the start itself the penalty is not zero.")
    _shift(model)
    _compare(answer, model, start, "with every parameter 0.1 from its start")
    with torch.random.fork_rng(devices=[]):
        model[3] = nn.Linear(3, 5)
    _compare(answer, model, start, "with a new head of another shape")
    model.append(nn.Linear(5, 2))
    _compare(answer, model, start, "with a layer that start does not know")
    model[0].requires_grad_(False)
    _compare(answer, model, start, "with a frozen layer that differs from start")


@exercise(
    "Write a function of (first, second, share) that averages two state_dicts; what does not "
    "float is the second's. answer = the function."
)
def not_forgetting_4(answer: Any) -> None:
    """A point between two networks, in tensors of its own."""
    expect_function(answer, "(first, second, share)")
    first, second = _copied(_network()), _copied(_network())
    for value in second.values():
        value += 1 if value.is_floating_point() else 7
    originals = copy.deepcopy((first, second))
    for share in (0.25, 1.0, 0.0):
        found = _called(answer, first, second, share)
        for words, now, then in zip(("first", "second"), (first, second), originals, strict=True):
            if now.keys() != then.keys() or any(not now[key].equal(then[key]) for key in then):
                raise NotYet(f"the {words} state_dict has changed; return new tensors.")
        _compare_states(found, first, second, share)


def _number(answer: Any) -> Any:
    """Take a tensor or NumPy scalar for the number in it."""
    scalar = getattr(answer, "ndim", None) == 0 and hasattr(answer, "item")
    return answer.item() if scalar else answer


def _network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def _shift(model: nn.Module) -> None:
    """Move parameters and buffers, since the penalty is to see only the first."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor += 0.1 if tensor.is_floating_point() else 3


def _called(answer: Callable, *arguments: Any) -> Any:
    try:
        return answer(*arguments)
    except Exception as error:
        raise NotYet(f"the function raised {type(error).__name__}: {error}") from None


def _value(answer: Callable, model: nn.Module, start: dict[str, Tensor], when: str) -> float:
    try:
        found = _called(answer, model, start, 3.0)
    except NotYet as hint:
        raise NotYet(f"{when}: {hint}") from None
    number = found.detach().item() if torch.is_tensor(found) and found.numel() == 1 else found
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise NotYet(f"{when}: expected one number, found {type(found).__name__}.")
    return number


def _compare(answer: Callable, model: nn.Module, start: dict[str, Tensor], when: str) -> None:
    """Compare value and gradients with what the formula says."""
    before = copy.deepcopy((model.state_dict(), start))
    value = _value(answer, model, start, when)
    named = _with_a_start(dict(model.named_parameters()), start)
    pulled = {name: p for name, p in named.items() if p.requires_grad}
    right = _penalty(pulled, start)
    if not math.isclose(value, right, rel_tol=1e-4, abs_tol=1e-6):
        every = _with_a_start(model.state_dict(), start)
        why = _why(value, right, _penalty(named, start), _penalty(every, start))
        raise NotYet(f"{when} the penalty is {value:.4f}; expected {right:.4f}. {why}")
    now = (model.state_dict(), start)
    if any(not torch.equal(a[key], b[key]) for a, b in zip(now, before, strict=True) for key in b):
        raise NotYet(f"{when} the function has changed the model or start.")
    found = answer(model, start, 3.0)
    if not torch.is_tensor(found) or not found.requires_grad:
        raise NotYet(f"{when} the penalty has no gradient; keep it a tensor.")
    grads = torch.autograd.grad(found, list(pulled.values()), allow_unused=True)
    for (name, p), grad in zip(pulled.items(), grads, strict=True):
        if grad is None or not torch.allclose(grad, 3.0 * (p - start[name]).detach(), atol=1e-5):
            raise NotYet(f"{when} the gradient of {name} is not strength times its distance.")


def _with_a_start(tensors: dict[str, Tensor], start: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: t for n, t in tensors.items() if n in start and start[n].shape == t.shape}


def _penalty(tensors: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    return 1.5 * sum((t - start[name]).square().sum().item() for name, t in tensors.items())


def _why(value: float, right: float, frozen_too: float, buffers_too: float) -> str:
    hints = {
        2 * right: "It is twice as much: half the strength is asked for.",
        1.5 * math.sqrt(right / 1.5): "The distance is to be squared.",
        frozen_too: "What is frozen does not count.",
        buffers_too: "Buffers do not count: no optimizer moves them.",
    }
    near = [hint for wrong, hint in hints.items() if math.isclose(value, wrong, rel_tol=1e-3)]
    return (near or ["Check the factor, the square, and which tensors are counted."])[0]


def _compare_states(found: Any, first: dict, second: dict, share: float) -> None:
    if not isinstance(found, dict):
        raise NotYet(f"expected a dictionary, found {type(found).__name__}.")
    if found.keys() != second.keys():
        raise NotYet(f"the keys differ: {sorted(found.keys() ^ second.keys(), key=str)[:3]}.")
    for key, end in second.items():
        value = found[key]
        if not torch.is_tensor(value) or value.shape != end.shape:
            raise NotYet(f"{key} is not a tensor of shape {tuple(end.shape)}.")
        if value.dtype != end.dtype:
            raise NotYet(f"{key} has become {value.dtype}; expected {end.dtype}.")
        if end.is_floating_point():
            right = first[key] + share * (end - first[key])
            if not torch.allclose(value, right, atol=1e-6):
                raise NotYet(f"with share {share}, {key} does not lie at that share of the way.")
        elif not torch.equal(value, end):
            raise NotYet(f"{key} does not float and has to be the second's.")
        owners = (first[key].data_ptr(), end.data_ptr())
        if value.data_ptr() in owners:
            raise NotYet(f"with share {share}, {key} shares its memory with an input; copy it.")
