"""Checks of the exercises in *Too many down-samplings*: sides of maps, fields, strides.

A wrong number mostly tells which mistake it comes from, so typical ones have hints of their own.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torchvision import models

from tlbook.check.grading import NotYet, exercise, expect, expect_function, expect_table

PADDED = "its strided layers have padding, so an odd side is rounded up."
UNPADDED = "its strided layers have no padding, so something is lost at each: count layer by layer."
LAST_SIDES = {"efficientnet_b0": 3, "squeezenet1_1": 4, "vgg16_bn": 2}
LAST_SIDE_HINTS = {
    "efficientnet_b0": {"_2": PADDED, "_1": "that is behind the pooling to a fixed size."},
    "squeezenet1_1": {
        "_5": UNPADDED,
        "_2": "it has four down-sampling steps, not five.",
        "_3": "it has four steps, and its poolings round up (ceil_mode).",
        "_1": "that is behind the pooling to a fixed size.",
    },
    "vgg16_bn": {
        "_3": "its poolings have no padding, so an odd side is rounded down.",
        "_7": "that is behind AdaptiveAvgPool2d(7), which enlarges; look before it.",
    },
}
SMALLEST = {"shufflenet_v2_x1_0": 97, "squeezenet1_1": 65, "convnext_tiny": 128}
SMALLEST_HINTS = {
    "shufflenet_v2_x1_0": {"_128": f"a smaller one does it: {PADDED}", "_96": "96 leaves 3."},
    "squeezenet1_1": {
        "_64": f"64 leaves 3: {UNPADDED}",
        "_128": "it has four down-sampling steps, not five.",
    },
    "convnext_tiny": {"_97": "its strided layers have no padding and round down."},
}
FIELD_HINTS = {
    "field": {
        "_13": "that adds k - 1 for every layer; behind a stride of 2 each neighbour is 2 away.",
        "_12": "that adds k - 1 for every layer; behind a stride of 2 each neighbour is 2 away.",
        "_21": "the pooling has a kernel too: it adds 2 - 1.",
        "_26": "a layer's own stride lengthens the jump of the layers behind it, not its own.",
        "_27": "a layer's own stride lengthens the jump of the layers behind it, not its own.",
        "_18": "the stride of the fourth layer doubles the jump for the fifth.",
    },
    "jump": {
        "_2": "there are two layers with stride 2.",
        "_8": "there are two layers with stride 2, not three.",
    },
}


@exercise("What side has the last map at 80 pixels? answer = a dictionary from names to numbers.")
def downsamplings_1(answer: Any) -> None:
    """The last maps of three networks that round in different ways."""
    expect_table(answer, LAST_SIDES, LAST_SIDE_HINTS)


@exercise("Which image is just large enough? answer = a dictionary from three names to numbers.")
def downsamplings_2(answer: Any) -> None:
    """The smallest images that leave maps of 4x4."""
    expect_table(answer, SMALLEST, SMALLEST_HINTS)


@exercise('Compute the receptive field by hand: answer = {"field": ..., "jump": ...}.')
def downsamplings_3(answer: Any) -> None:
    """Receptive field and jump of five layers in a row."""
    expect_table(answer, {"field": 22, "jump": 4}, FIELD_HINTS)


@exercise("Count the down-sampling steps: answer = a function that takes a network.")
def downsamplings_4(answer: Any) -> None:
    """A counter that works from shapes, for any network of layers."""
    if isinstance(answer, nn.Module):
        raise NotYet("expected the function itself, without calling it, found a network.")
    expect_function(answer, "a network")
    with torch.device("meta"):
        small = models.resnet18(weights=None)
        small.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        tried = {
            "ResNet-18 with a stem of stride 1": (small, 4),
            "MobileNetV3-Small": (models.mobilenet_v3_small(weights=None), 5),
            "SqueezeNet": (models.squeezenet1_1(weights=None), 4),
            "ConvNeXt": (models.convnext_tiny(weights=None), 4),
        }
    pools = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.AvgPool2d(2), nn.MaxPool2d(3, 1, 1))
    tried["a network with one pooling of stride 2 and one of stride 1"] = (pools, 1)
    for name, (network, right) in tried.items():
        _grade_count(answer, name, network, right)


def _grade_count(
    count_steps: Callable[[nn.Module], Any], name: str, network: nn.Module, right: int
) -> None:
    modes = [module.training for module in network.modules()]
    found = count_steps(network)
    if isinstance(found, torch.Tensor) and found.numel() == 1:
        found = found.item()
    try:
        expect(found, right)
    except NotYet as hint:
        why = {
            right + 1: "the pooling to a fixed size at the end is no step",
            right + 3: "a shortcut halves the same map again, beside the main path",
        }.get(found if isinstance(found, int) else -1, "count by shapes, layer by layer")
        raise NotYet(f"{name}: {hint} Perhaps {why}.") from None
    if [module.training for module in network.modules()] != modes:
        raise NotYet(f"{name}: its mode has changed; put back train or eval in every module.")
    if any(m._forward_hooks or m._forward_pre_hooks for m in network.modules()):
        raise NotYet(f"{name}: your hooks are still there; call remove() on each of them.")


@exercise("Remove two down-samplings: answer = a function that takes a MobileNetV3-Small.")
def downsamplings_5(answer: Any) -> None:
    """Two strides taken out of a MobileNetV3, in place, with every weight kept."""
    if isinstance(answer, nn.Module):
        raise NotYet("expected the function itself, without calling it, found a network.")
    expect_function(answer, "a network")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = models.mobilenet_v3_small(weights=None).eval()
        before = copy.deepcopy(network.state_dict())
        answer(network)
    after = network.state_dict()
    if after.keys() != before.keys():
        odd = sorted(after.keys() ^ before.keys())[0]
        raise NotYet(f"the keys differ, {odd} among them: change settings, do not move layers.")
    changed = [key for key, value in before.items() if not value.equal(after[key])]
    if changed:
        raise NotYet(f"{changed[0]} has changed: a new layer starts at random, keep the old one.")
    with torch.inference_mode():
        side = network.features(torch.zeros(1, 3, 32, 32)).shape[2]
        large = network.features(torch.zeros(1, 3, 224, 224)).shape[2]
        outputs = tuple(network(torch.zeros(2, 3, 32, 32)).shape)
    if (side, large) == (1, 7):
        raise NotYet("the maps of your network are as before: does it change the one it is given?")
    if (side, large) != (4, 28):
        raise NotYet(
            f"32 pixels leave {side}x{side} and 224 leave {large}x{large}, expected 4x4 and 28x28: "
            "set the stride of exactly two layers to 1."
        )
    if outputs != (2, 1000):
        raise NotYet(f"two images give {outputs}, expected (2, 1000).")
