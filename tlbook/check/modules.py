"""Checks of the exercises in *modules*: what a network is made of.

A wrong number mostly tells which mistake it comes from, so typical ones have hints of their own.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torchvision.models import densenet121

from tlbook.check.grading import NotYet, exercise, expect, expect_table

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)

# features.4.block.1.0 of mobilenet_v3_small: 96 channels of 28x28, 5x5 depthwise, stride 2.
DEPTHWISE = {"parameters": 2_400, "bytes": 9_600, "mult_adds": 3_763_200}
ONE_GROUP = "with groups=96 each filter sees one input channel, not all 96."
NO_BIAS = "the layer has bias=False."
DEPTHWISE_HINTS = {
    "parameters": {
        "_230400": ONE_GROUP,
        "_230496": ONE_GROUP,
        "_2496": NO_BIAS,
        "_19200": "the parameters are the same for every image of the batch.",
    },
    "bytes": {
        "_2400": "that is the number of parameters; a float32 takes four bytes.",
        "_4800": "that is float16; a float32 takes four bytes.",
        "_19200": "a float32 takes four bytes, and the batch does not matter here.",
        "_76800": "those are bits, or multiplied by the batch: a float32 takes four bytes, "
        "and the weights are there once.",
        "_921600": ONE_GROUP,
        "_9984": NO_BIAS,
    },
    "mult_adds": {
        "_470400": "that is for one image; mult-adds are for the batch of 8.",
        "_15052800": "stride 2 makes the output 14x14; the weights are applied there.",
        "_1881600": "that is for one image and an output of 28x28: stride 2 makes it 14x14.",
        "_7526400": "a multiplication and its addition count as one mult-add.",
        "_361267200": ONE_GROUP,
        "_45158400": ONE_GROUP,
        "_2764800": "without padding the output would be 12x12; with padding=2 it is 14x14.",
        "_3244800": "the output is not 13x13: round (28 + 2 * 2 - 5) / 2 down, then add 1.",
        "_4320000": "the output is not 15x15: round (28 + 2 * 2 - 5) / 2 down, then add 1.",
        "_19200": "each weight is applied at every position of the output, which is 14x14.",
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
        _25="one is missing: the classifier has a convolution too.",
        _8="those are the Fire blocks; each has three convolutions, and two stand outside.",
        _1="that is one level of features; the other convolutions are deeper.",
        _52="that counts tensors: each of these layers has a weight and a bias.",
    )


@exercise('Count the layer: answer = {"parameters": ..., "bytes": ..., "mult_adds": ...}.')
def modules_2(answer: Any) -> None:
    """A depthwise convolution counted by hand."""
    expect_table(answer, DEPTHWISE, DEPTHWISE_HINTS)


@exercise('Sort the bytes by class of layer: answer = {"Linear": ..., ...}.')
def modules_3(answer: Any) -> None:
    """The bytes of a state_dict, sorted by the class of the layer that a key leads to."""
    if isinstance(answer, dict):
        more = {name: size for name, size in answer.items() if name not in DENSENET}
        if DENSENET.keys() < answer.keys():
            names = ", ".join(sorted(map(str, more)))
            if not any(more.values()):
                raise NotYet(f"only classes that own tensors belong in it: leave out {names}.")
            raise NotYet(f"recursive: the tensors of {names} belong to layers inside them.")
        conv = answer.get("Conv2d")
        if isinstance(conv, float) and 0 < conv < 100:
            raise NotYet("those look like megabytes; expected bytes, as whole numbers.")
    expect_table(answer, DENSENET, DENSENET_HINTS)


@exercise("Slow every BatchNorm down: answer = a function that takes a network.")
def modules_4(answer: Any) -> None:
    """A small operation on all layers of one kind, wherever they are."""
    if isinstance(answer, nn.Module) or not callable(answer):
        found = type(answer).__name__
        raise NotYet(f"expected the function itself, without calling it, found {found}.")
    _grade_momentum(answer, "DenseNet-121", densenet121(weights=None))
    _grade_momentum(answer, "a small network", _many_settings())


def _many_settings() -> nn.Module:
    """A network on which everything that must not change differs from its default."""
    network = nn.Sequential(
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.2)),
        nn.BatchNorm2d(4, momentum=0.2),
        nn.InstanceNorm2d(4, momentum=0.3, affine=True, track_running_stats=True),
    )
    for tensor in network.state_dict().values():
        tensor.fill_(3)
    network[0].eval()
    network[0][0].requires_grad_(False)
    return network


def _grade_momentum(slow_down: Callable[[nn.Module], Any], name: str, network: nn.Module) -> None:
    before = copy.deepcopy(network)
    with torch.random.fork_rng(devices=[]):
        returned = slow_down(network)
    if [path for path, _ in network.named_modules()] != [p for p, _ in before.named_modules()]:
        raise NotYet(f"the modules of {name} are no longer the same: change their settings only.")
    pairs = list(zip(network.modules(), before.modules(), strict=True))
    norms = [(new, old) for new, old in pairs if isinstance(old, NORMS)]
    if isinstance(returned, nn.Module) and returned is not network:
        raise NotYet("you return another network: change the given one in place, not a copy.")
    kept = [new for new, old in norms if new.momentum == old.momentum]
    if kept:
        raise NotYet(
            f"in {name} {len(kept)} of {len(norms)} BatchNorm layers keep their momentum, among "
            f"them a {type(kept[0]).__name__} ({_short(kept[0].momentum)}). Go through modules() "
            "and test the class."
        )
    for new, _ in norms:
        if not isinstance(new.momentum, int | float) or not math.isclose(new.momentum, 0.01):
            found = f"{type(new).__name__} with momentum {_short(new.momentum)}"
            raise NotYet(f"{name} now has a {found}, expected 0.01.")
    for new, old in norms:
        old.momentum = new.momentum
    _expect_nothing_else(name, pairs)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else repr(value)


def _expect_nothing_else(name: str, pairs: list[tuple[nn.Module, nn.Module]]) -> None:
    """Raise `NotYet` if a module differs from the one before in anything at all."""
    (network, before), *_ = pairs
    for new, old in pairs:
        kind = type(old).__name__
        if vars(new).get("momentum") != vars(old).get("momentum"):
            raise NotYet(f"momentum is set on the class {kind} too: test the class first.")
        if new.training != old.training:
            raise NotYet(f"the mode of a {kind} has changed: leave train() and eval() alone.")
        if new.extra_repr() != old.extra_repr():
            raise NotYet(f"a setting of a {kind} other than momentum has changed.")
    for (path, new), old in zip(network.named_parameters(), before.parameters(), strict=True):
        if new.requires_grad != old.requires_grad:
            raise NotYet(f"{name}: requires_grad of {path} has changed; only momentum should.")
    for (key, new), old in zip(
        network.state_dict().items(), before.state_dict().values(), strict=True
    ):
        if not new.equal(old):
            raise NotYet(f"{name}: the values of {key} have changed; only momentum should.")
