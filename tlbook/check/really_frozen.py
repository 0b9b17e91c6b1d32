"""Checks of the exercises in *really frozen*: what stays, what moves, and who finds it."""

import copy
from typing import Any

import torch
from torch import nn
from torchvision.models import densenet121, mobilenet_v3_small, shufflenet_v2_x0_5

from tlbook.check.grading import NotYet, exercise, expect, expect_function

NORMS = nn.BatchNorm1d | nn.BatchNorm2d
TRAINING = ("features.denseblock4.", "features.norm5.", "classifier.")


@exercise(
    "How many parameters of mobilenet_v3_small are trainable after freeze(model) and then "
    "replace_head(model, 5)? answer = a number."
)
def really_frozen_1(answer: Any) -> None:
    """A head that is put on after freezing trains, and nothing else."""
    expect(
        _number(answer),
        5_125,
        _5120="the new layer has a bias for each class as well.",
        _0="the new head came after freezing, and new layers are trainable by default.",
        _2="those are two tensors; count the numbers in them.",
        _595973="only the last layer of the classifier is replaced; the layer before it is frozen.",
        _1025000="that is the old head of 1000 classes.",
        _1522981="that is the whole network; all but the new head is frozen.",
    )


@exercise(
    "How many entries of densenet121's state_dict change in one forward pass in training mode, "
    "all parameters frozen? answer = a number."
)
def really_frozen_2(answer: Any) -> None:
    """Three buffers a BatchNorm, counters included."""
    expect(
        _number(answer),
        363,
        _0="requires_grad is off, but the mode is training: BatchNorm averages in every batch.",
        _121="that is the number of BatchNorm layers; each has more than one buffer.",
        _242="mean and variance move, and something that counts the batches does too.",
        _727="those are all entries; the parameters have stayed.",
        _364="those are the parameters; they are what stays.",
    )


@exercise(
    "Write a function of (model) that freezes every BatchNorm1d and BatchNorm2d in place, weights "
    "and statistics, and nothing else. answer = the function."
)
def really_frozen_3(answer: Any) -> None:
    """BatchNorm frozen for good, everything else as it was."""
    expect_function(answer, "a network")
    for name, model in _networks().items():
        changed = answer(model)
        if isinstance(changed, nn.Module) and changed is not model:
            raise NotYet("the function returned another network; change the given one in place.")
        try:
            _grade_norms(model)
        except NotYet as hint:
            raise NotYet(f"{name}: {hint}") from None


@exercise(
    "Give densenet121 a head of 3 classes and freeze all but features.denseblock4, features.norm5 "
    "and the head. answer = the network."
)
def really_frozen_4(answer: Any) -> None:
    """A network whose end trains and whose beginning is a fixed function."""
    if not isinstance(answer, nn.Module):
        raise NotYet(f"expected a network, found {type(answer).__name__}.")
    shapes = {key: tuple(value.shape) for key, value in answer.state_dict().items()}
    with torch.device("meta"):
        expected = densenet121(num_classes=3).state_dict()
    right = {key: tuple(value.shape) for key, value in expected.items()}
    if shapes.keys() != right.keys():
        raise NotYet("its keys are not those of densenet121; change the network in place.")
    if shapes["classifier.weight"][0] != 3:
        raise NotYet(f"the head has {shapes['classifier.weight'][0]} classes; expected 3.")
    if shapes != right:
        raise NotYet("some shapes are not those of densenet121 with three classes.")
    for name, parameter in answer.named_parameters():
        if parameter.requires_grad != name.startswith(TRAINING):
            state = "trainable" if parameter.requires_grad else "frozen"
            raise NotYet(f"{name} is {state}; expected the opposite.")
    _expect_moving(copy.deepcopy(answer))


def _number(answer: Any) -> Any:
    """Take a tensor or NumPy scalar for the number in it."""
    scalar = getattr(answer, "ndim", None) == 0 and hasattr(answer, "item")
    return answer.item() if scalar else answer


def _networks() -> dict[str, nn.Module]:
    """Build networks in training mode, with BatchNorm near the surface, deep inside, or nowhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        flat = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
        plain = nn.Sequential(nn.Linear(12, 8), nn.LayerNorm(8), nn.Linear(8, 2))
        return {
            "an MLP": flat,
            "ShuffleNetV2": shufflenet_v2_x0_5(weights=None),
            "MobileNetV3-Small": mobilenet_v3_small(weights=None),
            "a network without BatchNorm": plain,
        }


def _grade_norms(model: nn.Module) -> None:
    norms = {path: m for path, m in model.named_modules() if isinstance(m, NORMS)}
    inside = {id(p) for m in norms.values() for p in m.parameters()}
    free = [path for path, m in norms.items() if any(p.requires_grad for p in m.parameters())]
    if free:
        kind = type(norms[free[0]]).__name__
        raise NotYet(
            f"{len(free)} of {len(norms)} BatchNorms still train their weights, the first is "
            f"the {kind} {free[0]!r}."
        )
    off = [n for n, p in model.named_parameters() if id(p) not in inside and not p.requires_grad]
    if off:
        raise NotYet(f"{off[0]} is frozen too, and it belongs to no BatchNorm.")
    model.train()
    awake = [path for path, m in norms.items() if m.training]
    if awake:
        raise NotYet(
            f"after model.train() the BatchNorm {awake[0]!r} is in training mode; its mean moves."
        )
    asleep = [
        path
        for path, m in model.named_modules()
        if not m.training and path not in norms and next(m.children(), None) is None
    ]
    if asleep:
        raise NotYet(f"after model.train() {asleep[0]} is in evaluation mode; it was not to be.")


def _expect_moving(model: nn.Module) -> None:
    """Raise `NotYet` unless training mode moves the statistics of the last parts, and no others."""
    before = copy.deepcopy(model.state_dict())
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model.train()(torch.rand(2, 3, 64, 64))
    for name, buffer in model.named_buffers():
        moved = not torch.equal(buffer, before[name])
        if moved and not name.startswith(TRAINING):
            raise NotYet(f"the counts are right, but {name} moves when train() is called.")
        if not moved and name.startswith(TRAINING):
            raise NotYet(f"the counts are right, but {name} does not move in training mode.")
