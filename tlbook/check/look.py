"""Checks of the exercises in the part *Look*: what a network is made of.

A wrong number mostly tells which mistake it comes from, so typical ones have hints of their own.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torchvision.models import densenet121

from tlbook.check.grading import NotYet, exercise, expect

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)

# features.4.block.1.0 of mobilenet_v3_small: 96 channels of 28x28, 5x5 depthwise, stride 2.
DEPTHWISE = {"parameters": 2_400, "bytes": 9_600, "mult_adds": 3_763_200}
ONE_GROUP = "with groups=96 each filter sees one input channel, not all 96."
NO_BIAS = "the layer has bias=False."
DEPTHWISE_HINTS = {
    "parameters": {"_230400": ONE_GROUP, "_2496": NO_BIAS, "_230496": ONE_GROUP},
    "bytes": {
        "_2400": "that is the number of parameters; a float32 takes four bytes.",
        "_4800": "that is float16; a float32 takes four bytes.",
        "_19200": "that is float64; a float32 takes four bytes.",
        "_76800": "those are bits; a float32 takes 32 of them, or four bytes.",
        "_921600": ONE_GROUP,
        "_9984": NO_BIAS,
    },
    "mult_adds": {
        "_470400": "that is for one image; mult-adds are for the batch of 8.",
        "_15052800": "stride 2 makes the output 14x14; the weights are applied there.",
        "_1881600": "that is for one image and an output of 28x28: stride 2 makes it 14x14.",
        "_7526400": "a multiplication and its addition count as one mult-add.",
        "_361267200": ONE_GROUP,
        "_2709504": "without padding the output would be 12x12; with padding=2 it is 14x14.",
    },
}

# Bytes of DenseNet-121's state_dict by the class of the layer that owns the tensor.
DENSENET = {"Conv2d": 27_480_832, "BatchNorm2d": 670_152, "Linear": 4_100_000}
DENSENET_HINTS = {
    "Conv2d": {"_6870208": "those are numbers; each float32 takes four bytes."},
    "Linear": {
        "_1025000": "those are numbers; each float32 takes four bytes.",
        "_4096000": "that is the weight alone; the layer has a bias too.",
    },
    "BatchNorm2d": {
        "_334592": "those are its parameters; the state_dict has its buffers too.",
        "_669184": "num_batches_tracked is missing: it is a buffer as well.",
        "_669668": "num_batches_tracked is an int64, which takes eight bytes, not four.",
        "_335560": "those are its buffers; the state_dict has its parameters too.",
    },
}


@exercise("How many Conv2d layers does squeezenet1_1 have? answer = a number.")
def modules_1(answer: Any) -> None:
    """Convolutions of SqueezeNet, which are all at least two levels down."""
    expect(
        answer,
        26,
        _0="no Conv2d is a child of the network itself: children() looks one level down only.",
        _2="that is how many children the network has; go deeper, and test the class.",
        _68="that counts every module; count those that are instances of nn.Conv2d.",
        _67="that counts every module but the network; count the instances of nn.Conv2d.",
        _52="that counts tensors: each of these layers has a weight and a bias.",
    )


@exercise(
    "How many parameters, bytes (float32) and mult-adds (batch of 8) does the layer have? "
    'answer = {"parameters": ..., "bytes": ..., "mult_adds": ...}.'
)
def modules_2(answer: Any) -> None:
    """A depthwise convolution counted by hand."""
    _expect_table(answer, DEPTHWISE, DEPTHWISE_HINTS)


@exercise(
    "How many bytes of densenet121's state_dict belong to layers of each class? "
    'answer = a dictionary such as {"Linear": ...}.'
)
def modules_3(answer: Any) -> None:
    """The bytes of a state_dict, sorted by the class of the layer that a key leads to."""
    _expect_table(answer, DENSENET, DENSENET_HINTS)


@exercise(
    "Write a function that sets the momentum of every BatchNorm1d and BatchNorm2d of a network to "
    "0.01, in place. answer = the function."
)
def modules_4(answer: Any) -> None:
    """A small operation on all layers of one kind, wherever they are."""
    if not callable(answer):
        raise NotYet(f"expected a function that takes a network, found {type(answer).__name__}.")
    with torch.random.fork_rng(devices=[]):
        small = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), nn.Dropout(0.2))
        networks = {"DenseNet-121": densenet121(weights=None), "a small network": small}
    for name, network in networks.items():
        _grade_momentum(answer, name, network)


def _grade_momentum(slow_down: Callable[[nn.Module], Any], name: str, network: nn.Module) -> None:
    right = copy.deepcopy(network)
    for module in right.modules():
        if isinstance(module, NORMS):
            module.momentum = 0.01
    slow_down(network)
    norms = [module for module in network.modules() if isinstance(module, NORMS)]
    changed = sum(norm.momentum == 0.01 for norm in norms)
    if changed < len(norms):
        kinds = {type(norm).__name__ for norm in norms if norm.momentum != 0.01}
        raise NotYet(
            f"in {name} {changed} of {len(norms)} BatchNorm layers have momentum 0.01; the rest "
            f"is of class {' and '.join(sorted(kinds))}. Go through modules() and test the class."
        )
    before, after = right.state_dict(), network.state_dict()
    same = before.keys() == after.keys() and all(before[k].equal(after[k]) for k in before)
    if not same or str(network) != str(right):
        raise NotYet(f"the momentum is right, but something else in {name} has changed too.")


def _expect_table(answer: Any, right: dict[str, int], hints: dict[str, dict[str, str]]) -> None:
    """Raise `NotYet` unless the answer is a dictionary with the right value under each key."""
    if not isinstance(answer, dict):
        raise NotYet(f"expected a dictionary, found {type(answer).__name__}.")
    if answer.keys() != right.keys():
        missing = sorted(right.keys() - answer.keys())
        extra = sorted(map(str, answer.keys() - right.keys()))
        raise NotYet(f"wrong keys: missing {missing or 'none'}, not expected {extra or 'none'}.")
    for key, value in right.items():
        try:
            expect(answer[key], value, **hints[key])
        except NotYet as hint:
            raise NotYet(f"{key}: {hint}") from None
