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
        (3, 32, 64): "the batch stays in front.",
    }
    if isinstance(answer, tuple) and answer != (16, 3, 32, 64):
        rule = "the last dimension changes, whatever stands before it stays."
        raise NotYet(f"{answer}: {hints.get(answer, rule)}")
    expect(answer, (16, 3, 32, 64))


@exercise(
    "Write a function of (first, second) that returns one Linear for both. answer = the function."
)
def layer_by_hand_2(answer: Any) -> None:
    """Two linear layers in a row are one."""
    expect_function(answer, "two Linear layers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _grade_merged(answer, nn.Linear(4, 4), nn.Linear(4, 4), torch.randn(7, 4))
        for biases in ((True, True), (False, True), (True, False), (False, False)):
            pair = nn.Linear(3, 5, bias=biases[0]), nn.Linear(5, 3, bias=biases[1])
            _grade_merged(answer, *pair, torch.randn(7, 3))
        _grade_merged(answer, nn.Linear(4, 2), nn.Linear(2, 6), torch.randn(7, 4))


def _grade_merged(function: Any, first: nn.Linear, second: nn.Linear, x: torch.Tensor) -> None:
    kind = f"for bias={first.bias is not None} and bias={second.bias is not None}"
    held, right = copy.deepcopy([first.state_dict(), second.state_dict()]), second(first(x))
    try:
        merged = function(first, second)
    except Exception as error:
        if first.bias is not None and second.bias is not None:
            raise
        raise NotYet(
            f"{kind} your function raised {type(error).__name__}: a missing bias is None."
        ) from error
    if not isinstance(merged, nn.Linear):
        raise NotYet(f"expected a Linear, found {type(merged).__name__}.")
    shape = (second.out_features, first.in_features)
    if tuple(merged.weight.shape) != shape:
        raise NotYet(
            f"the weight has shape {tuple(merged.weight.shape)}, expected {shape}: what runs "
            "first stands on the right of the product, second.weight @ first.weight."
        )
    found = merged(x)
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
        stem = mobilenet_v3_small(weights=None).features[0][0]
        other = nn.Conv2d(3, 8, kernel_size=(5, 7))
    for conv in (stem, other):
        before = conv.weight.detach().clone()
        found = answer(conv)
        if not conv.weight.equal(before):
            raise NotYet("the layer's weights have changed: the array shares their memory; copy.")
        if not isinstance(found, np.ndarray):
            raise NotYet(f"expected an array, found {type(found).__name__}.")
        _grade_pictures(found, before.permute(0, 2, 3, 1).numpy())


def _grade_pictures(found: np.ndarray, filters: np.ndarray) -> None:
    right = _scaled(filters, (1, 2, 3))
    if _same(found, right):
        return
    if _same(found, right.transpose(0, 3, 1, 2)):
        raise NotYet("the channels must come last: permute the axes.")
    if _same(found, right.transpose(0, 2, 1, 3)):
        raise NotYet("height and width have changed places: permute(0, 2, 3, 1) keeps their order.")
    if found.shape != filters.shape:
        raise NotYet(f"the array has shape {found.shape}, expected {filters.shape}.")
    if _same(found, _scaled(filters, (0, 1, 2, 3))):
        raise NotYet("that is one range for all filters; scale each by its own.")
    if _same(found, _scaled(filters, (1, 2))):
        raise NotYet("that is a range for each channel; scale a filter's channels together.")
    if _same(found, filters):
        raise NotYet("these are the weights as they are; scale each filter to [0, 1].")
    if _same(np.sort(found.reshape(len(found), -1)), np.sort(right.reshape(len(found), -1))):
        raise NotYet("the numbers are right and in the wrong places: permute axes, not reshape.")
    raise NotYet("each filter must go from 0 to 1: subtract its smallest, divide by its range.")


def _same(found: np.ndarray, right: np.ndarray) -> bool:
    return found.shape == right.shape and np.allclose(found, right, atol=1e-5)


def _scaled(filters: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    low, high = filters.min(axes, keepdims=True), filters.max(axes, keepdims=True)
    return (filters - low) / (high - low)


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
    children = dict(module.named_children())
    if not {"gate", "value"} <= children.keys():
        raise NotYet(f"the registered layers are {list(children) or 'none'}: no value and gate.")
    for name in ("value", "gate"):
        if not isinstance(children[name], nn.Linear):
            raise NotYet(f"{name} is a {type(children[name]).__name__}, expected a Linear.")
    if type(module).forward is nn.Module.forward:
        raise NotYet("the class has no function named forward.")
    if any(layer.weight.shape != (4, 8) for layer in (module.value, module.gate)):
        raise NotYet("for (8, 4) both layers must take 8 numbers and give 4.")
    found, value, gate = module(x), module.value(x), module.gate(x)
    if not isinstance(found, torch.Tensor):
        raise NotYet(f"forward returns {type(found).__name__}, expected a tensor.")
    if _close(found, gate * value.sigmoid()):
        raise NotYet("the sigmoid belongs to the gate, not to the value.")
    if _close(found, value * gate):
        raise NotYet("the gate lacks its sigmoid.")
    if not _close(found, value * gate.sigmoid()):
        raise NotYet("the output is not value(x) times the sigmoid of gate(x).")


def _close(found: torch.Tensor, right: torch.Tensor) -> bool:
    return found.shape == right.shape and torch.allclose(found, right, atol=1e-6)
