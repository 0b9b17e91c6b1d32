"""Checks of the exercises in *small adapters*: factors counted, placed, and merged."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small

from tlbook.check.grading import NotYet, exercise, expect, expect_function

RANK = 4


@exercise(
    "How many numbers does a LoRA of rank 4 train beside nn.Conv2d(64, 128, 3, stride=2, "
    "padding=1)? answer = a number."
)
def adapters_1(answer: Any) -> None:
    """Four filters of the old form, and a 1×1 convolution back."""
    expect(
        _number(answer),
        2_816,
        _768="the factor that maps down keeps the 3×3 form, so it has nine numbers a channel.",
        _2304="that is the factor that maps down; the other one trains too.",
        _512="that is the factor that maps up; the other one trains too.",
        _6912="the factor that maps up is a convolution of 1×1.",
        _4864="the factor that maps down keeps the 3×3 form; the one that maps up is of 1×1.",
        _2944="the factors have no bias; the base keeps its own, frozen.",
        _2948="the factors have no bias; the base keeps its own, frozen.",
        _2820="the factors have no bias; the base keeps its own, frozen.",
        _73728="that is the weight of the convolution itself, which is frozen.",
        _73856="that is the convolution itself, which is frozen.",
        _76544="the weight of the convolution is in it, and that is frozen.",
        _76672="the convolution is in it, and that is frozen.",
        _704="that is rank 1; the rank is 4.",
    )


@exercise(
    "Beside how many Conv2d and Linear layers of mobilenet_v3_small is a LoRA of rank 4, with "
    "factors for each group, smaller than the layer's weight? answer = a number."
)
def adapters_2(answer: Any) -> None:
    """Every layer but the depthwise ones."""
    with torch.device("meta"):
        network = mobilenet_v3_small(weights=None)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    paying = [m for m in layers if _factors(m) < m.weight.numel()]
    hints = {
        str(len(layers)): "that is all of them; beside a depthwise one the factors are larger.",
        str(len(layers) - len(paying)): "beside these they are larger; the others are asked for.",
        str(len(paying) - 1): "the stem counts too; its factors are smaller than its weight.",
        str(len(paying) - 3): "the stem and the Linear layers count too.",
        str(sum(isinstance(m, nn.Conv2d) for m in paying)): "Linear layers count too.",
        str(sum(isinstance(m, nn.Linear) for m in paying)): "convolutions count too.",
    }
    expect(_number(answer), len(paying), **{f"_{key}": hint for key, hint in hints.items()})


@exercise(
    "Write a function of (base, down, up, scale) that returns what has to be added to base.weight, "
    "for Linear and for Conv2d with groups. answer = the function."
)
def adapters_3(answer: Any) -> None:
    """A merged layer that computes what the layer and its adapter compute."""
    expect_function(answer, "(base, down, up, scale)")
    for name, (base, down, up, x) in _pairs().items():
        before = [copy.deepcopy(layer.state_dict()) for layer in (base, down, up)]
        found = _called(answer, name, base, down, up, 0.5)
        if not torch.is_tensor(found):
            raise NotYet(f"{name}: expected a tensor, found {type(found).__name__}.")
        if found.shape != base.weight.shape:
            shapes = f"{tuple(found.shape)}; expected {tuple(base.weight.shape)}"
            raise NotYet(f"{name}: the change has shape {shapes}.")
        now = [layer.state_dict() for layer in (base, down, up)]
        if any(not a[k].equal(b[k]) for a, b in zip(now, before, strict=True) for k in b):
            raise NotYet(f"{name}: a layer has changed; return the change and leave them alone.")
        _compare(name, found.detach(), base, down, up, x)


@exercise(
    "Freeze mobilenet_v3_small and put a LoRA of rank 2 beside each 1×1 convolution; it starts as "
    "it was. answer = the network."
)
def adapters_4(answer: Any) -> None:
    """A frozen network with trainable factors that begin at zero."""
    if not isinstance(answer, nn.Module):
        raise NotYet(f"expected a network, found {type(answer).__name__}.")
    with torch.device("meta"):
        plain = mobilenet_v3_small(weights=None)
    spots = [m for m in plain.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    expected = sum(2 * (m.in_channels + m.out_channels) for m in spots)
    frozen = sum(p.numel() for p in plain.parameters())
    _expect_counts(answer, expected, frozen, len(spots))
    network = copy.deepcopy(answer).train()
    awake = [
        path
        for path, m in network.named_modules()
        if m.training and isinstance(m, nn.BatchNorm2d | nn.Dropout)
    ]
    if awake:
        raise NotYet(f"after train() {awake[0]} is in training mode; requires_grad is not enough.")
    _expect_safe_start(network)


def _number(answer: Any) -> Any:
    """Take a tensor or NumPy scalar for the number in it."""
    scalar = getattr(answer, "ndim", None) == 0 and hasattr(answer, "item")
    return answer.item() if scalar else answer


def _factors(layer: nn.Module) -> int:
    """Count a LoRA's numbers: down has rank rows for each group, up maps back within it."""
    groups = getattr(layer, "groups", 1)
    down = groups * RANK * layer.weight[0].numel()
    return down + layer.weight.shape[0] * RANK


def _pairs() -> dict[str, tuple[nn.Module, nn.Module, nn.Module, Tensor]]:
    """Build layers with two factors beside each, none of them zero, and an input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        linear = nn.Linear(6, 5), nn.Linear(6, 3, bias=False), nn.Linear(3, 5, bias=False)
        found = {"Linear": (*linear, torch.rand(2, 6))}
        forms = {"Conv2d 3×3": (4, 6, 3, 1), "Conv2d 1×1": (4, 6, 1, 1), "two groups": (4, 6, 3, 2)}
        for name, (inputs, outputs, side, groups) in forms.items():
            form = {"padding": side // 2, "groups": groups}
            base = nn.Conv2d(inputs, outputs, side, stride=2, **form)
            down = nn.Conv2d(inputs, 3 * groups, side, stride=2, bias=False, **form)
            up = nn.Conv2d(3 * groups, outputs, 1, groups=groups, bias=False)
            found[name] = base, down, up, torch.rand(2, inputs, 7, 7)
    return found


def _called(answer: Callable, name: str, *arguments: Any) -> Any:
    try:
        return answer(*arguments)
    except Exception as error:
        reason = "" if "groups" not in name else "each group has a down and an up of its own; "
        found = f"{type(error).__name__}: {error}"
        raise NotYet(f"{name}: {reason}the function raised {found}") from None


def _compare(
    name: str, found: Tensor, base: nn.Module, down: nn.Module, up: nn.Module, x: Tensor
) -> None:
    changed = copy.deepcopy(base)
    with torch.no_grad():
        changed.weight += found
        beside = up(down(x))
        if torch.allclose(changed(x), base(x) + beside, atol=1e-5):
            raise NotYet(f"{name}: the scale is missing.")
        if not torch.allclose(changed(x), base(x) + 0.5 * beside, atol=1e-5):
            changed.weight.copy_(found)
            if torch.allclose(changed(x), base(x) + 0.5 * beside, atol=1e-5):
                raise NotYet(f"{name}: that is the merged weight; return the change alone.")
            raise NotYet(f"{name}: the merged layer does not compute what base and adapter do.")


def _expect_counts(network: nn.Module, expected: int, frozen: int, spots: int) -> None:
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in network.parameters())
    if trainable == frozen:
        raise NotYet("no adapter is there, and nothing is frozen.")
    if trainable == 0 and everything > frozen:
        raise NotYet("the adapters are frozen too; freeze first, then put them in.")
    if everything - trainable != frozen:
        raise NotYet(
            f"{everything - trainable:,} numbers are frozen; expected the network's {frozen:,}."
        )
    if trainable != expected:
        raise NotYet(
            f"{trainable:,} numbers train; expected {expected:,}, factors of rank 2 beside "
            f"{spots} convolutions."
        )


def _expect_safe_start(network: nn.Module) -> None:
    """Compare with the network whose factors are all zero, and look for gradients."""
    plain = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in plain.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = torch.rand(2, 3, 32, 32)
    output = network(x)
    expected = plain(x)
    if (output - expected).abs().max() > 1e-4 * expected.abs().max():
        raise NotYet("it does not start as it was: one factor of each pair has to be zero.")
    output.sum().backward()
    moving = [p for p in network.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    if not moving:
        raise NotYet("every gradient is zero; only one factor of each pair may be zero.")
