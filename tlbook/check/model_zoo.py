"""Checks of the exercises in *The model zoo*: names, metadata, counts and filters.

A wrong number mostly tells which mistake it comes from, so typical ones have hints of their own.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torchvision import models

from tlbook.check.grading import NotYet, exercise, expect, expect_function, expect_table

VIT_HINTS = {
    "builders": {
        "_0": 'a pattern needs a star: list_models(include="vit*").',
        "_8": "three of these names only contain vit; the question is how many begin with it.",
    },
    "weights": {
        "_5": "some of these builders have more than one set of weights; add up the lengths.",
        "_15": "DEFAULT is a second name of one set; len() of the enum leaves it out.",
        "_13": "count the builders whose names begin with vit, not all that contain it.",
    },
    "crop": {
        "_224": "that is another set of vit_b_16; this one was tuned end to end on more pixels.",
        "_256": "that is what another set resizes to; read crop_size of this one.",
    },
}
GLOBAL = "do not count the global pooling: it leaves one row."
STEP_HINTS = {
    "densenet169": {
        "_6": GLOBAL,
        "_3": "those are the transitions; the stem has two steps of its own.",
        "_4": "the stem has two steps: a convolution and a pooling.",
    },
    "mobilenet_v3_small": {
        "_6": GLOBAL,
        "_4": "count the stem too: its convolution has stride 2.",
        "_15": "the poolings of squeeze-and-excitation leave one row and do not count.",
    },
    "squeezenet1_1": {
        "_3": "the stem's convolution has stride 2 as well.",
        "_5": GLOBAL,
    },
}


@exercise('Read the zoo: answer = {"builders": ..., "weights": ..., "crop": ...}.')
def model_zoo_1(answer: Any) -> None:
    """Builders whose name begins with vit, their sets of weights, and the crop of one."""
    if isinstance(answer, dict) and isinstance(answer.get("crop"), list | tuple):
        raise NotYet("crop: the transform holds a list of one number; answer with the number.")
    names = models.list_models(include="vit*")
    sets = sum(len(models.get_model_weights(name)) for name in names)
    expect_table(answer, {"builders": len(names), "weights": sets, "crop": 384}, VIT_HINTS)


@exercise("Count the down-sampling steps: answer = a dictionary from three names to numbers.")
def model_zoo_2(answer: Any) -> None:
    """Down-sampling steps of networks with different stems."""
    right = {"densenet169": 5, "mobilenet_v3_small": 5, "squeezenet1_1": 4}
    expect_table(answer, right, STEP_HINTS)


@exercise("Find the smallest network: answer = a function that takes an accuracy in percent.")
def model_zoo_3(answer: Any) -> None:
    """The cheapest entry of the zoo that is good enough, by its metadata."""
    expect_function(answer, "an accuracy in percent")
    table = _default_weights()
    for wanted in (60, 75.5, 80, 82.008, 85, 99):
        enough = {name: size for name, (size, top1) in table.items() if top1 > wanted}
        right = min(enough, key=lambda name: enough[name], default=None)
        try:
            found = answer(wanted)
        except KeyError as key:
            raise NotYet(
                f"the metadata of some network lack {key}: ask list_models(module=models) for "
                "the classifiers alone."
            ) from None
        if found != right:
            raise NotYet(_why_not_smallest(table, wanted, found, right))


def _default_weights() -> dict[str, tuple[int, float]]:
    """Return parameters and top-1 accuracy in percent of every classifier's default weights."""
    metas = {
        name: models.get_model_weights(name).DEFAULT.meta
        for name in models.list_models(module=models)
    }
    return {
        name: (meta["num_params"], meta["_metrics"]["ImageNet-1K"]["acc@1"])
        for name, meta in metas.items()
    }


def _why_not_smallest(
    table: dict[str, tuple[int, float]], wanted: float, found: Any, right: str | None
) -> str:
    asked = f"smallest({wanted}) returned {found!r}"
    if right is None:
        return f"{asked}; no network is that good: expected None."
    if not isinstance(found, str):
        return f"{asked}; expected the name of a network, such as 'resnet18'."
    if found not in table:
        return f"{asked}, which is no classifier: ask list_models(module=models)."
    size, top1 = table[found]
    if top1 <= wanted:
        return f"{asked}, whose default weights reach {top1}%, which is not above {wanted}%."
    return f"{asked} with {size:,} parameters; {table[right][0]:,} are enough."


@exercise("Count dead filters: answer = a function that takes a network.")
def model_zoo_4(answer: Any) -> None:
    """A question to the first convolution of a network, wherever it stands."""
    if isinstance(answer, nn.Module) or not callable(answer):
        found = type(answer).__name__
        raise NotYet(f"expected the function itself, without calling it, found {found}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mobile = models.mobilenet_v3_small(weights=None)
        small = models.convnext.ConvNeXt([models.convnext.CNBlockConfig(24, None, 2)])
    _grade_dead(answer, "MobileNetV3-Small as it is built", mobile, 0)
    with torch.no_grad():
        mobile.features[0][0].weight[:3] *= 1e-6
        mobile.features[0][0].weight[3] *= 0.05
        mobile.features[0][0].weight[4] *= 200
        mobile.features[12][0].weight[:7] = 0
        small.features[0][0].weight.mul_(0.001)
        small.features[0][0].weight[::4] *= 1e-4
    _grade_dead(answer, "MobileNetV3-Small with three filters near zero", mobile, 3)
    _grade_dead(answer, "a ConvNeXt with small weights and six dead filters", small, 6)


def _grade_dead(
    dead_filters: Callable[[nn.Module], Any], name: str, network: nn.Module, right: int
) -> None:
    before = copy.deepcopy(network.state_dict())
    found = dead_filters(network)
    if any(not value.equal(before[key]) for key, value in network.state_dict().items()):
        raise NotYet(f"{name}: your function changes its weights; work on copies.")
    if isinstance(found, torch.Tensor) and found.numel() == 1:
        found = found.item()
    try:
        expect(found, right)
    except NotYet as hint:
        if not isinstance(found, int | float):
            raise NotYet(f"{name}: {hint}") from None
        raise NotYet(
            f"in {name} you find {found!r}, expected {right}. Take one norm for each filter of the "
            "first Conv2d and compare with their median."
        ) from None
