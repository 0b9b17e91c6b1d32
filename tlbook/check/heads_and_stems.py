"""Checks of the exercises in *heads and stems*: new ends for networks the chapter did not open.

Functions are tried on slim networks with random weights, built as torchvision builds the real ones.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import (
    ConvNeXt,
    SwinTransformer,
    VisionTransformer,
    convnext,
    mobilenet_v3_small,
)

from tlbook.audit import audit
from tlbook.check.grading import NotYet, exercise, expect, expect_function, expect_table
from tlbook.heads import get_head

SIDE = 32
SLIM: dict[str, Callable[[], nn.Module]] = {
    "ConvNeXt": lambda: ConvNeXt([convnext.CNBlockConfig(16, None, 2)], num_classes=10),
    "Swin": lambda: SwinTransformer([4, 4], 16, [2], [2], [4, 4], num_classes=10),
    "ViT": lambda: VisionTransformer(SIDE, 8, 1, 2, 16, 32, num_classes=10),
}
MEAN, STD = (0.6, 0.4, 0.2), (0.3, 0.2, 0.25)


@exercise(
    "How many parameters has the new head of mobilenet_v3_large for 7 classes? answer = a number."
)
def heads_and_stems_1(answer: Any) -> None:
    """Size of a head that is the last of several layers."""
    expect(
        answer,
        8_967,
        _8960="the head has a bias for each class too.",
        _6727="that is a head in place of the whole classifier; the head is its last layer.",
        _1281000="that is the old head, for 1000 classes.",
        _1239047="that is the whole classifier, of which the head is the last layer.",
        _4210999="that is the whole network; ask get_head for the head.",
    )


@exercise(
    "What is the side of the last map of densenet121 for 64 pixels, before and after "
    'replace_stem(model, small_input=True)? answer = {"before": ..., "after": ...}.'
)
def heads_and_stems_2(answer: Any) -> None:
    """Halvings of a network, with and without those in its stem."""
    hints = {
        "before": {
            "_1": "count the halvings: two in the stem, one in each of three transitions.",
            "_4": "count the halvings: two in the stem, one in each of three transitions.",
            "_8": "the stem halves twice, in conv0 and in pool0.",
            "_7": "that is for images of 224 pixels.",
            "_16": "that is behind the stem; three transitions follow, and each of them halves.",
        },
        "after": {
            "_4": "the max-pool of the stem is gone too, not the stride of conv0 alone.",
            "_2": "the stem no longer shrinks the image.",
            "_64": "the three transitions still halve the maps.",
            "_16": "there are three transitions, and each of them halves.",
        },
    }
    expect_table(answer, {"before": 2, "after": 8}, hints)


@exercise(
    "Give any network a head of Linear, ELU, Linear: answer = a function of a network, the number "
    "of classes and the hidden width."
)
def heads_and_stems_3(answer: Any) -> None:
    """An MLP head whose place and width are found by structure."""
    expect_function(answer, "a network, the number of classes and the hidden width")
    for name, build in {"MobileNetV3": mobilenet_v3_small, **SLIM}.items():
        if name != "ConvNeXt":
            _expect_grown(answer, name, build().eval())


def _expect_grown(grow: Callable[..., Any], name: str, model: nn.Module) -> None:
    path, old, _ = get_head(model)
    rest = {key: value for key, value in _tensors(model).items() if not key.startswith(path)}
    grow(model, 3, 24)
    try:
        head = model.get_submodule(path)
    except AttributeError:
        raise NotYet(f"{name} has lost {path!r}: only the last layer was to go.") from None
    if head is old:
        raise NotYet(f"{name} still has its old head at {path!r}: change the network in place.")
    kinds = [type(m).__name__ for m in head.modules() if not list(m.children())]
    if kinds != ["Linear", "ELU", "Linear"]:
        raise NotYet(f"the head of {name} holds {kinds}, expected Linear, ELU, Linear.")
    widths = [(m.in_features, m.out_features) for m in head.modules() if isinstance(m, nn.Linear)]
    right = [(old.in_features, 24), (24, 3)]
    if widths != right:
        raise NotYet(f"the two Linear in {name} are {widths}, expected {right} (in, out).")
    after = {key: value for key, value in _tensors(model).items() if not key.startswith(path)}
    if after.keys() != rest.keys() or any(not torch.equal(rest[k], after[k]) for k in rest):
        raise NotYet(f"something besides the last layer of {name} has changed.")
    with torch.no_grad():
        shape = tuple(model.eval()(torch.rand(2, 3, SIDE, SIDE)).shape)
    if shape != (2, 3):
        raise NotYet(f"{name} gives {shape} for two images and three classes.")


@exercise(
    "Make a colour network with a patch stem take grey images from 0 to 1: answer = a function of "
    "a network, three means and three standard deviations."
)
def heads_and_stems_4(answer: Any) -> None:
    """The normalisation of three channels in the weights and the bias of one."""
    expect_function(answer, "a network, three means and three standard deviations")
    for name, build in SLIM.items():
        _expect_folded(answer, name, build().eval())


def _expect_folded(fold: Callable[..., Any], name: str, model: nn.Module) -> None:
    colour, grey = copy.deepcopy(model), torch.rand(2, 1, SIDE, SIDE)
    fold(model, MEAN, STD)
    stem = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    if stem.weight.shape[1] != 1:
        raise NotYet(
            f"the stem of {name} still takes {stem.weight.shape[1]} channels; change it in place."
        )
    with torch.no_grad():
        found, mean = model.eval()(grey), torch.tensor(MEAN)[:, None, None]
        std = torch.tensor(STD)[:, None, None]
        right = colour((grey - mean) / std)
        _expect_close(found, right, colour, grey, name)
    if findings := audit(model, grey).findings:
        raise NotYet(f"the logits of {name} are right, but the audit says: {findings[0].detail}.")


def _expect_close(found: Tensor, right: Tensor, colour: nn.Module, grey: Tensor, name: str) -> None:
    if torch.allclose(found, right, atol=1e-4):
        return
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    wrong = {
        "the weights are summed, but nothing is divided and subtracted": grey.expand(-1, 3, -1, -1),
        "the means are missing: they belong in the bias": grey / std,
        "the standard deviations are missing: divide the weights by them": grey - mean,
        "the weights of the three channels are added, not averaged": (grey / 3 - mean) / std,
        "the means are divided by the standard deviations twice": (grey - mean / std) / std,
        "the bias has the wrong sign: the means are subtracted": (grey + mean) / std,
    }
    for hint, image in wrong.items():
        if torch.allclose(found, colour(image), atol=1e-4):
            raise NotYet(f"{hint} ({name}).")
    first = next(module for module in colour.modules() if isinstance(module, nn.Conv2d))
    first.bias.zero_()
    if torch.allclose(found, colour((grey - mean) / std), atol=1e-4):
        raise NotYet(f"the bias that the stem had is lost: subtract from it ({name}).")
    raise NotYet(f"the logits of {name} are not those of the colour network.")


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}
