"""Checks of the exercises in *more than one device*.

Counts are compared with hints for typical slips; a reader's function runs on cases at which the
typical mistakes differ.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import convnext_tiny, mobilenet_v3_small

from tlbook.check.grading import NotYet, exercise, expect_function, expect_table

LAUNCH = {"processes": 32, "global_batch": 2048, "steps": 25, "too_many": 16, "local_rank": 3}
LAUNCH_HINTS = {
    "processes": {
        "_4": "that is the machines.",
        "_8": "that is the processes of one machine.",
        "_12": "each of the machines starts them all: multiply.",
    },
    "global_batch": {
        "_64": "that is the batch of one process.",
        "_512": "that is the batch of one machine.",
        "_256": "each machine has more than one process.",
    },
    "steps": {
        "_24": "the last batch of a process is smaller, and still a step: round up.",
        "_782": "that would be one process; each has its part of the examples.",
        "_98": "that would be the processes of one machine.",
        "_196": "that would be one process for each machine.",
    },
    "too_many": {
        "_0": "50,000 cannot be divided evenly by the processes: what does the sampler do?",
        "_1200": "the sampler pads to equal parts, not to full batches.",
        "_1": "that is what some of the processes get too many; how many in all?",
    },
    "local_rank": {
        "_19": "that is the rank; the local rank begins at 0 on each machine.",
        "_2": "that is the number of its machine.",
        "_4": "ranks begin at 0.",
    },
}


@exercise("Eight processes, ring all-reduce, mobilenet_v3_small: answer = bytes each sends a step.")
def more_devices_1(answer: Any) -> None:
    """Bytes that a process sends for the gradient of a MobileNetV3."""
    value = _number(answer)
    with torch.device("meta"):
        size = sum(parameter.nbytes for parameter in mobilenet_v3_small().parameters())
    hints = {
        1.75: "",
        1.0: "that is the size of the gradient; how often does a part of it travel?",
        0.875: "the parts go round twice: once to be added, once to be handed out.",
        2.0: "that is the limit for very many processes.",
        14.0: "in each of the 14 turns a process sends a part, not the whole gradient.",
        7.0: "that is process 0 of a star.",
        1.75 / 4: "those are numbers; a float32 has four bytes.",
        1.75 * 8: "that is all eight together.",
        1.5: "that is four processes.",
    }
    for factor, hint in hints.items():
        if math.isclose(value, factor * size, rel_tol=1e-5):
            if hint:
                raise NotYet(hint)
            return
    if 0 < value < 1000:
        raise NotYet(f"{value:g} looks like megabytes; the answer is in bytes.")
    raise NotYet(f"{value:,.0f} is not it: start from the bytes of the gradient, {size:,}.")


@exercise("Read the launch line: answer = the dictionary of its five numbers.")
def more_devices_2(answer: Any) -> None:
    """Processes, batch, steps, padding and local rank of a launch."""
    if isinstance(answer, dict):
        answer = {key: _whole(value) for key, value in answer.items()}
    expect_table(answer, LAUNCH, LAUNCH_HINTS)


@exercise("Write pool(counts, means, variances), which returns the mean and variance of all.")
def more_devices_3(answer: Any) -> None:
    """Mean and variance of all values from those of unequal shares."""
    expect_function(answer, "counts, means and variances")
    random = torch.Generator().manual_seed(0)
    for counts in ([40, 40], [10, 30, 60], [5, 100]):
        parts = [torch.randn(n, generator=random).double() * (i + 1) + 3 * i
                 for i, n in enumerate(counts)]  # fmt: skip
        means = [part.mean().item() for part in parts]
        variances = [part.var(correction=0).item() for part in parts]
        found = _pair(answer(list(counts), list(means), list(variances)))
        _expect_statistics(found, torch.cat(parts), counts, means, variances)


@exercise(
    "Write unwrap(state), which returns the state_dict of the plain network. answer = unwrap."
)
def more_devices_4(answer: Any) -> None:
    """Prefixes of wrapped networks, one of which has a layer called `module`."""
    expect_function(answer, "a state_dict")
    with torch.device("meta"):
        convnext = convnext_tiny()
    layers = {"module": nn.Linear(2, 3), "norm": nn.BatchNorm1d(3), "fc": nn.Linear(3, 2)}
    named = nn.Sequential()
    for name, layer in layers.items():
        named.add_module(name, layer)
    for title, network in (
        ("convnext_tiny", convnext),
        ("the network with a layer called module", named),
    ):
        for how, source in (("wrapped", _Wrapper(network)), ("not wrapped", network)):
            state = dict(source.state_dict())
            given = dict(state)
            found = answer(state)
            if state.keys() != given.keys():
                raise NotYet("the dictionary that came in has changed: return a new one.")
            _expect_state(found, network.state_dict(), f"{title}, {how}")


class _Wrapper(nn.Module):
    """What a wrapped network's keys look like, without moving it to a device."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def _number(answer: Any) -> float:
    if isinstance(answer, Tensor) and answer.numel() == 1:
        return float(answer.item())
    if isinstance(answer, bool | str | Tensor) or not hasattr(answer, "__float__"):
        raise NotYet(f"expected a number, found {type(answer).__name__}.")
    return float(answer)


def _whole(value: Any) -> Any:
    """Return 3 for 3.0, and for a tensor or NumPy number of it, so that its hint is found."""
    if hasattr(value, "item"):
        value = value.item()
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _pair(found: Any) -> tuple[float, float]:
    if not isinstance(found, tuple | list | Tensor) or len(found) != 2:
        raise NotYet("expected two numbers, mean and variance.")
    return _number(found[0]), _number(found[1])


def _expect_statistics(
    found: tuple[float, float],
    values: Tensor,
    counts: list[int],
    means: list[float],
    variances: list[float],
) -> None:
    mean, variance = found
    where = f"for shares of {counts}"
    if not math.isclose(mean, values.mean().item(), rel_tol=1e-4, abs_tol=1e-5):
        if math.isclose(mean, sum(means) / len(means), rel_tol=1e-4):
            raise NotYet(f"{where} the mean is a plain average: weigh each share by its number.")
        raise NotYet(f"{where} the mean is {mean:.4f}, not {values.mean().item():.4f}.")
    right = values.var(correction=0).item()
    if math.isclose(variance, right, rel_tol=1e-4):
        return
    within = sum(n * v for n, v in zip(counts, variances, strict=True)) / len(values)
    if math.isclose(variance, within, rel_tol=1e-4) or math.isclose(
        variance, sum(variances) / len(variances), rel_tol=1e-4
    ):
        raise NotYet(f"{where} the mean is right; the variance forgets how the means differ.")
    if math.isclose(variance, values.var().item(), rel_tol=1e-4):
        raise NotYet(f"{where} divide by the number of values, not by one less.")
    if math.isclose(variance, right**0.5, rel_tol=1e-4):
        raise NotYet("that is the standard deviation; expected the variance.")
    raise NotYet(f"{where} the mean is right, the variance {variance:.4f} is not {right:.4f}.")


def _expect_state(found: Any, right: dict[str, Tensor], where: str) -> None:
    if not isinstance(found, dict):
        raise NotYet(f"expected a dictionary, your function returns {type(found).__name__}.")
    if found.keys() != right.keys():
        lost = next((key for key in right if key not in found), None)
        extra = next((key for key in found if key not in right), None)
        raise NotYet(f"{where}: the key {lost!r} is missing, {extra!r} is there instead.")
    for key, value in right.items():
        if not isinstance(found[key], Tensor) or found[key].shape != value.shape:
            raise NotYet(f"{where}: {key} has another value than before.")
        if value.device.type != "meta" and not torch.equal(found[key], value):
            raise NotYet(f"{where}: {key} has another value than before.")
