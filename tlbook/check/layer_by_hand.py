"""Checks of the exercises in *a layer by hand*: shapes, merging, memory, a module."""

import copy
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.models import mobilenet_v3_small

from tlbook.check.grading import NotYet, exercise, expect, expect_function


@exercise(
    "Which shape comes out of nn.Linear(32, 64) for a batch (16, 3, 32, 32)? answer = a tuple."
)
def layer_by_hand_1(answer: Any) -> None:
    """A linear layer works on the last dimension."""
    answer = tuple(answer) if isinstance(answer, torch.Size | list) else answer
    hints = {
        (16, 64): "nothing flattens the images; a Linear works on the last dimension alone.",
        (16, 64, 32, 32): "that is what a convolution would do; a Linear takes the last dimension.",
        (16, 3, 64, 32): "the last dimension is the width, and it is the one that changes.",
        (16, 3, 64, 64): "one dimension changes, the last.",
        (3, 32, 64): "the batch stays in front.",
    }
    expect(answer, (16, 3, 32, 64), **{str(wrong): hint for wrong, hint in hints.items()})


@exercise(
    "Write a function of (first, second) that returns one Linear for both. answer = the function."
)
def layer_by_hand_2(answer: Any) -> None:
    """Two linear layers in a row are one."""
    expect_function(answer, "two Linear layers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for biases in ((True, True), (False, True), (True, False), (False, False)):
            pair = nn.Linear(3, 5, bias=biases[0]), nn.Linear(5, 3, bias=biases[1])
            _grade_merged(answer, *pair, torch.randn(7, 3))
        _grade_merged(answer, nn.Linear(4, 2), nn.Linear(2, 6), torch.randn(7, 4))


def _grade_merged(function: Any, first: nn.Linear, second: nn.Linear, x: torch.Tensor) -> None:
    kind = f"for bias={first.bias is not None} and bias={second.bias is not None}"
    held = copy.deepcopy([first.state_dict(), second.state_dict()])
    merged = function(first, second)
    if not isinstance(merged, nn.Linear):
        raise NotYet(f"expected a Linear, found {type(merged).__name__}.")
    shape = (second.out_features, first.in_features)
    if tuple(merged.weight.shape) != shape:
        raise NotYet(
            f"the weight has shape {tuple(merged.weight.shape)}, expected {shape}: what runs "
            "first stands on the right of the product, second.weight @ first.weight."
        )
    right, found = second(first(x)), merged(x)
    if not torch.allclose(found, right, atol=1e-5):
        if torch.allclose(found - found.mean(0), right - right.mean(0), atol=1e-5):
            raise NotYet(
                f"the weight is right, the bias is not, {kind}: the first bias passes "
                "through the second weight."
            )
        raise NotYet(f"the outputs differ {kind}: the weight is second.weight @ first.weight.")
    now = [first.state_dict(), second.state_dict()]
    if any(not old[key].equal(new[key]) for old, new in zip(held, now, strict=True) for key in old):
        raise NotYet("the result is right, but one of the two layers has been changed.")


@exercise("Write a function of (conv) that gives pictures of its filters. answer = the function.")
def layer_by_hand_3(answer: Any) -> None:
    """Weights as pictures, without touching the weights."""
    expect_function(answer, "a convolution")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv = mobilenet_v3_small(weights=None).features[0][0]
    before = conv.weight.detach().clone()
    found = answer(conv)
    if not conv.weight.equal(before):
        raise NotYet("the network's weights have changed: the array shares their memory; copy.")
    if not isinstance(found, np.ndarray):
        raise NotYet(f"expected an array, found {type(found).__name__}.")
    if found.shape == (16, 3, 3, 3) and _is_scaled(found, before.numpy()):
        raise NotYet("the channels must come last: permute the axes.")
    _grade_pictures(found, before.permute(0, 2, 3, 1).numpy())


def _is_scaled(found: np.ndarray, filters: np.ndarray) -> bool:
    low, high = filters.min((1, 2, 3), keepdims=True), filters.max((1, 2, 3), keepdims=True)
    return np.allclose(found, (filters - low) / (high - low), atol=1e-5)


def _grade_pictures(found: np.ndarray, filters: np.ndarray) -> None:
    if found.shape != filters.shape:
        raise NotYet(f"the array has shape {found.shape}, expected {filters.shape}.")
    if np.allclose(found, (filters - filters.min()) / np.ptp(filters), atol=1e-5):
        raise NotYet("that is one range for all filters; scale each by its own.")
    if np.allclose(found, filters):
        raise NotYet("these are the weights as they are; scale each filter to [0, 1].")
    if np.allclose(np.sort(found.reshape(16, -1)), np.sort(_scaled(filters).reshape(16, -1))) and (
        not _is_scaled(found, filters)
    ):
        raise NotYet("the numbers are right and in the wrong places: permute axes, not reshape.")
    if not _is_scaled(found, filters):
        raise NotYet("each filter must go from 0 to 1: subtract its smallest, divide by its range.")


def _scaled(filters: np.ndarray) -> np.ndarray:
    low = filters.min((1, 2, 3), keepdims=True)
    return (filters - low) / (filters.max((1, 2, 3), keepdims=True) - low)


@exercise("Write a module class with Linear layers `value` and `gate`. answer = the class.")
def layer_by_hand_4(answer: Any) -> None:
    """A module that multiplies what one layer says by what another lets through."""
    if isinstance(answer, nn.Module):
        raise NotYet("that is a module; answer with its class.")
    expect_function(answer, "the numbers of inputs and outputs")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, x = answer(8, 4), torch.randn(5, 8)
    if not isinstance(module, nn.Module):
        raise NotYet(f"calling it gives {type(module).__name__}, not a Module: inherit from it.")
    names = sorted(name for name, _ in module.named_children())
    if names != ["gate", "value"]:
        raise NotYet(f"the registered layers are {names or 'none'}, expected gate and value.")
    if type(module).forward is nn.Module.forward:
        raise NotYet("the class has no function named forward.")
    value, gate = module.value(x), module.gate(x)
    if tuple(value.shape) != (5, 4) or tuple(gate.shape) != (5, 4):
        raise NotYet("both layers must take 8 numbers and give 4, for (8, 4).")
    found = module(x)
    if found.shape == value.shape and torch.allclose(found, gate * value.sigmoid(), atol=1e-6):
        raise NotYet("the sigmoid belongs to the gate, not to the value.")
    if found.shape == value.shape and torch.allclose(found, value * gate, atol=1e-6):
        raise NotYet("the gate lacks its sigmoid.")
    if not torch.allclose(found, value * gate.sigmoid(), atol=1e-6):
        raise NotYet("the output is not value(x) times the sigmoid of gate(x).")
