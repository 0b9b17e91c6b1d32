"""Checks of the exercises in *A VGG+ResNet hybrid*: plugs, counts, weights by order, a new donor.

Slices are told by what they want and give, networks by their tensors and their maps.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from tlbook.check.grading import NotYet, exercise, expect_function, expect_table

FITS = {
    "resnet18.layer2": "its first convolution wants 64, its stride is 2; what does it give?",
    "vgg19_bn.features[7:14]": "VGG19 differs from VGG16 in later stages only.",
    "densenet121.features[4:6]": "look behind the transition, which halves channels and side.",
    "squeezenet1_1.features[3:6]": "its pooling rounds up: look at the side that leaves it.",
}
MISFITS = {
    "resnet50.layer2": "the blocks of a ResNet-50 pass on more channels than those of a ResNet-18.",
    "vgg16_bn.features[7:13]": "look at the side of the maps that it gives.",
    "mobilenet_v2.features[11:15]": "look at the channels that it gives.",
}
PLAN = {"parameters": 2_349_284, "last_map": 24, "factor": 18}
PLAN_HINTS = {
    "parameters": {
        "_2325002": "the first convolution and the head have changed.",
        "_2326154": "that leaves out the new classes.",
        "_2348132": "that leaves out the new channels.",
        "_2349194": "each new class has a bias too.",
        "_2325578": "that leaves out the new classes, and there are two new channels, not one.",
        "_2348708": "there are two new channels, not one.",
    },
    "last_map": {
        "_8": "the maps grow with the image.",
        "_3": "the hybrid halves twice, not five times.",
        "_12": "the hybrid halves twice.",
        "_48": "the hybrid halves twice.",
        "_96": "that is the side of the image.",
        "_1": "that is behind the pooling to one value.",
    },
    "factor": {
        "_9": "that is for one image.",
        "_3": "a map has two sides, and there are two images.",
        "_6": "a map has two sides.",
        "_2": "larger maps cost more too.",
    },
}


@exercise("Which slices fit between? answer = a list of the names.")
def hybrid_1(answer: Any) -> None:
    """Slices of six networks that want 64 maps, give 128, and halve once."""
    if not isinstance(answer, list | tuple | set | frozenset):
        raise NotYet(f"expected a list of names, found {type(answer).__name__}.")
    names = {str(name).replace(" ", "").lower() for name in answer}
    unknown = sorted(names - FITS.keys() - MISFITS.keys())
    if unknown:
        raise NotYet(f"{unknown[0]!r} is not on the list of the exercise.")
    for name, hint in MISFITS.items():
        if name in names:
            raise NotYet(f"{name} does not fit: {hint}")
    missing = [hint for name, hint in FITS.items() if name not in names]
    if missing:
        raise NotYet(f"no wrong one, and {len(missing)} still missing. About one: {missing[0]}")


@exercise('Count the plan: answer = {"parameters": ..., "last_map": ..., "factor": ...}.')
def hybrid_2(answer: Any) -> None:
    """Parameters, last map and growth of the work of a larger HybridNet."""
    if isinstance(answer, dict):
        single = {k for k, v in answer.items() if getattr(v, "shape", None) == ()}
        answer = {k: v.item() if k in single else v for k, v in answer.items()}
    expect_table(answer, PLAN, PLAN_HINTS)


def _source() -> nn.Module:
    block = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    network = nn.Sequential(block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    network(torch.rand(8, 3, 6, 6))  # moves the statistics
    return network.eval()


def _target(last: nn.Module) -> nn.Module:
    layers = {"first": nn.Conv2d(3, 4, 3, padding=1), "norm": nn.BatchNorm2d(4)}
    layers["rest"] = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential()
    for name, layer in (layers | {"last": last}).items():
        network.add_module(name, layer)
    return network.eval()


@exercise("Carry weights over by order: answer = a function of a source and a target.")
def hybrid_3(answer: Any) -> None:
    """Weights by order, all or nothing."""
    if isinstance(answer, nn.Module):
        raise NotYet("expected the function itself, without calling it, found a network.")
    expect_function(answer, "a source and a target")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        source, target = _source(), _target(nn.Linear(4, 5))
        shorter = nn.Sequential(*list(target)[:-1])
        longer = nn.Sequential(*target, nn.Linear(5, 5))
        _grade_move(answer, source, target)
        refused = {"the last tensor has another shape": _target(nn.Linear(4, 6))}
        refused["a tensor has as many values in another shape"] = _target(nn.Conv2d(4, 5, 1))
        refused |= {"the target has fewer entries": shorter, "the target has more entries": longer}
        for why, other in refused.items():
            _grade_refusal(answer, source, other, why)


def _grade_move(move: Callable[..., Any], source: nn.Module, target: nn.Module) -> None:
    before = copy.deepcopy(source.state_dict())
    try:
        move(source, target)
    except (KeyError, RuntimeError, ValueError) as error:
        raise NotYet(
            f"two networks with the same shapes and other keys, and it raised "
            f"{type(error).__name__}: go by order, not by name."
        ) from None
    values = list(source.state_dict().values())
    if not all(value.equal(old) for value, old in zip(values, before.values(), strict=True)):
        raise NotYet("the source has changed; it is the target that gets new values.")
    for (key, found), value in zip(target.state_dict().items(), values, strict=True):
        if not found.equal(value):
            kind = "a buffer" if "running" in key or "num_batches" in key else "a parameter"
            raise NotYet(f"{key} of the target, {kind}, has not the source's values.")
        if found.data_ptr() == value.data_ptr():
            raise NotYet(f"{key} lives in the source's memory: copy values, do not assign tensors.")


def _grade_refusal(
    move: Callable[..., Any], source: nn.Module, target: nn.Module, why: str
) -> None:
    before = copy.deepcopy(target.state_dict())
    try:
        move(source, target)
    except ValueError:
        pass
    except Exception as error:
        raise NotYet(f"{why}: expected a ValueError, found {type(error).__name__}.") from None
    else:
        raise NotYet(f"{why}, and nothing was raised: expected a ValueError.")
    if not all(value.equal(before[key]) for key, value in target.state_dict().items()):
        raise NotYet(f"{why}: refused, but part of the target is changed. Look before you copy.")


@exercise("Build a hybrid with a DenseNet: answer = a function of a densenet121 and a resnet18.")
def hybrid_4(answer: Any) -> None:
    """A hybrid from a donor that the chapter does not use."""
    if isinstance(answer, nn.Module):
        raise NotYet("expected the function itself, without calling it, found a network.")
    expect_function(answer, "a densenet121 and a resnet18")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        densenet, resnet = models.densenet121(weights=None), models.resnet18(weights=None)
        before = [copy.deepcopy(donor.state_dict()) for donor in (densenet, resnet)]
        try:
            network = answer(densenet, resnet)
        except AttributeError as error:
            raise NotYet(
                f"called with a densenet121, then a resnet18, it raised: {error}."
            ) from None
        if not isinstance(network, nn.Module):
            raise NotYet(f"your function returns {type(network).__name__}, expected a network.")
        _grade_loans(network, densenet, resnet)
        _grade_maps(network)
        for donor, old in zip((densenet, resnet), before, strict=True):
            new = donor.state_dict()
            if new.keys() != old.keys() or not all(new[k].equal(old[k]) for k in old):
                raise NotYet(f"a tensor of the {type(donor).__name__} has changed or is gone.")


def _grade_loans(network: nn.Module, densenet: nn.Module, resnet: nn.Module) -> None:
    held = list(network.state_dict().values())
    memory = {tensor.data_ptr() for tensor in held}
    parts = {"features[4:6]": densenet.features[4:6], "layer3": resnet.layer3}
    for name, part in parts.items():
        state = part.state_dict()
        if any(tensor.data_ptr() in memory for tensor in state.values()):
            raise NotYet(f"{name} is shared with its donor: copy it.")
        if not all(_is_among(value, held) for value in state.values()):
            raise NotYet(f"not all tensors of {name} are in your network with their values.")
    expected = 640 + 128 + 2570 + sum(p.numel() for m in parts.values() for p in m.parameters())
    found = sum(p.numel() for p in network.parameters())
    if found != expected:
        raise NotYet(f"{found:,} parameters, expected {expected:,}: stem, two slices and a Linear.")


def _is_among(value: Tensor, tensors: list[Tensor]) -> bool:
    return any(value.shape == other.shape and value.equal(other) for other in tensors)


def _grade_maps(network: nn.Module) -> None:
    entered: dict[tuple[int, int], tuple[int, ...]] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        entered[layer.in_channels, layer.out_channels] = tuple(inputs[0].shape[2:])

    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
    hooks = [conv.register_forward_hook(note) for conv in convs]
    network.eval()
    with torch.no_grad():
        shapes = [_shape_at(network, side) for side in (4, 28, 32)]
    for hook in hooks:
        hook.remove()
    if set(shapes) != {(2, 10)}:
        raise NotYet(f"two images give {shapes[-1]}, expected (2, 10) at 4, 28 and 32 pixels.")
    if entered.get((1, 64)) != (32, 32) or entered.get((128, 256)) != (16, 16):
        raise NotYet("expected maps of 32x32 in the stem and 16x16 where layer3 begins.")


def _shape_at(network: nn.Module, side: int) -> tuple[int, ...]:
    try:
        return tuple(network(torch.rand(2, 1, side, side)).shape)
    except RuntimeError:
        raise NotYet(
            f"{side}x{side} pixels do not go through: follow the shapes from part to part. A head "
            "that flattens without taking a mean first fits one size only."
        ) from None
