"""Checks of the exercises in *feature extraction*: other people's networks put to use.

Functions are tried on small networks with random weights, whose statistics make training mode
and evaluation mode differ plainly.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small, shufflenet_v2_x0_5

from tlbook.check.grading import NotYet, exercise, expect, expect_function, expect_table
from tlbook.surgery import get_head

PASSES = {"without": 97_200, "with": 1_200}
PASSES_HINTS = {
    "without": {
        "_120000": "an epoch trains on 960 images; the other 240 are measured once a fold.",
        "_24000": "that is one training on all images; there are five, each on 960.",
        "_96000": "the tested part needs features too, once in each fold.",
        "_120240": "in each fold the head is trained on 960 images, not on 1,200.",
        "_121200": "in each fold the head is trained on 960 images, not on 1,200.",
        "_19440": "that is one fold; there are five.",
        "_97440": "the tested parts hold 240 images in each of the five folds, 1,200 in all.",
        "_6000": "every epoch needs the features of the training part again.",
    },
    "with": {
        "_6000": "the features of an image are the same in every fold: it passes once.",
        "_960": "every image is tested in one of the folds, so that all need features.",
        "_24000": "the features of an image are the same in every epoch: it passes once.",
        "_0": "the cache has to be filled.",
    },
}


@exercise(
    "How many features does mobilenet_v3_small give once an Identity stands where its head was? "
    "answer = a number."
)
def feature_extraction_1(answer: Any) -> None:
    """Width of the features in front of a head that is the last of several layers."""
    expect(
        answer,
        1_024,
        _1000="those are the classes: the head is still there.",
        _576="the whole classifier is gone; get_head finds only the last layer of it.",
        _3="that is the place of the head in the classifier; ask for the length of the output.",
    )


@exercise(
    "How many images does the backbone pass without a cache and with one? "
    'answer = {"without": ..., "with": ...}.'
)
def feature_extraction_2(answer: Any) -> None:
    """What a cache of features saves, counted."""
    expect_table(answer, PASSES, PASSES_HINTS)


@exercise(
    "Write a function of (model, images) that returns what arrives at the model's head, in "
    "evaluation mode, and leaves the model as it was. answer = the function."
)
def feature_extraction_3(answer: Any) -> None:
    """Features of any network, read without leaving a trace in it."""
    expect_function(answer, "a network and images")
    builders = {"ShuffleNetV2": shufflenet_v2_x0_5, "MobileNetV3-Small": mobilenet_v3_small}
    for name, build in builders.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, images = build(weights=None), torch.rand(4, 3, 64, 64)
            model.train()(images)  # moves the running statistics away from 0 and 1
        try:
            _grade_features(answer, model, images)
        except NotYet as hint:
            raise NotYet(f"{name}: {hint}") from None


@exercise(
    "Write a function of (backbone, images) that returns the mean of the features of each image "
    "and of its mirror image. answer = the function."
)
def feature_extraction_4(answer: Any) -> None:
    """Features that are the same for an image and its mirror image."""
    expect_function(answer, "a backbone and images")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten()
        ).eval()
        images = torch.rand(5, 3, 12, 12)
    with torch.no_grad():
        features, mirrored = backbone(images), backbone(images.flip(-1))
        blended = backbone((images + images.flip(-1)) / 2)
        channels = (features + backbone(images.flip(1))) / 2
        upside_down = (features + backbone(images.flip(-2))) / 2
    found = _expect_features(answer(backbone, images.clone()), features.shape)
    right = (features + mirrored) / 2
    mistakes = [
        (features, "these are the features of the image alone; its mirror image is missing."),
        (mirrored, "these are the features of the mirror image alone; the image is missing."),
        (2 * right, "that is the sum of both; divide by two."),
        (blended, "you average the two images; average their features."),
        (channels, "left and right are the last dimension; you have swapped the channels."),
        (upside_down, "left and right must change places, the last dimension; not top and bottom."),
    ]
    _expect_close(found, right, mistakes)


def _grade_features(function: Callable, model: nn.Module, images: Tensor) -> None:
    """Raise `NotYet` unless the features are right and the model, in training mode, unchanged."""
    path = get_head(model).path
    bare = copy.deepcopy(model)
    bare.set_submodule(path, nn.Identity())
    before, text = copy.deepcopy(model.state_dict()), str(model)
    with torch.no_grad():
        as_in_training = copy.deepcopy(bare)(images)
        right = bare.eval()(images)
        logits = copy.deepcopy(model).eval()(images)
    returned = function(model, images.clone())
    if torch.is_tensor(returned) and returned.shape == logits.shape:
        raise NotYet("these are the outputs of the head; return what arrives at it.")
    found = _expect_features(returned, right.shape)
    in_training = "these are the features in training mode: they depend on the rest of the batch."
    _expect_close(found, right, [(as_in_training, in_training)])
    if found.requires_grad:
        raise NotYet("the features carry a graph; compute them in inference mode.")
    if str(model) != text:
        raise NotYet("the model has lost its head; work on a copy, or put the head back.")
    if not all(module.training for module in model.modules()):
        raise NotYet("the model came in training mode and is left in evaluation mode.")
    after = model.state_dict()
    if any(not torch.equal(before[key], after[key]) for key in before):
        raise NotYet("the features are right, but the model's running statistics have moved.")
    if any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()):
        raise NotYet("the features are right, but a hook is left on the model; remove it.")


def _expect_features(found: Any, shape: torch.Size) -> Tensor:
    if not torch.is_tensor(found):
        raise NotYet(f"the function returned {type(found).__name__}; expected a tensor.")
    if found.shape != shape:
        raise NotYet(
            f"for {shape[0]} images the result has the shape {tuple(found.shape)}; "
            f"expected {tuple(shape)}, one row of features for each image."
        )
    return found


def _expect_close(found: Tensor, right: Tensor, mistakes: list[tuple[Tensor, str]]) -> None:
    """Raise `NotYet` unless the values are right; a known mistake is named."""
    if torch.allclose(found, right, atol=1e-4):
        return
    for wrong, hint in mistakes:
        if torch.allclose(found, wrong, atol=1e-4):
            raise NotYet(hint)
    raise NotYet("the shape is right, but the numbers are not those of the features asked for.")
