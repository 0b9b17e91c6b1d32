"""Right and typically wrong answers to the exercises of *cross-validating networks*."""

import functools

import torch
from torchvision.models import mobilenet_v3_small

from tlbook import replace_stem

WIDTHS = (0.25, 0.5, 1.0)


def grey_mobilenet(width, classes=10):
    model = mobilenet_v3_small(weights=None, num_classes=classes, width_mult=width)
    return replace_stem(model, in_channels=1)


def leaked(images, train, val):
    seen = {images[n].numpy().tobytes() for n in train}
    return sum(images[n].numpy().tobytes() in seen for n in val)


def pairs(images, train, val):
    return sum(torch.equal(images[t], images[v]) for t in train for v in val)


def contents(images, train, val):
    seen, asked = ({images[n].numpy().tobytes() for n in part} for part in (train, val))
    return len(seen & asked)


def of_train(images, train, val):
    return leaked(images, val, train)


def positions(images, train, val):
    return len(set(train) & set(val))


def all_copies(images, train, val):
    return leaked(images, range(len(images)), val)


def by_sum(images, train, val):
    seen = {round(images[n].sum().item(), 4) for n in train}
    return sum(round(images[n].sum().item(), 4) in seen for n in val)


def nearly(images, train, val):
    return sum(any(torch.allclose(images[t], images[v], atol=1e-3) for t in train) for v in val)


def whether(images, train, val):
    return leaked(images, train, val) > 0


def three_networks():
    return {str(width): grey_mobilenet(width) for width in WIDTHS}


def one_for_all():
    models = three_networks()
    return {name: functools.partial(models.get, name) for name in models}


three_networks.builds_answer = one_for_all.builds_answer = True


RIGHT = {
    "cross_validation_1": "middle",
    "cross_validation_2": ["a", "c", "d"],
    "cross_validation_3": leaked,
    "cross_validation_4": {
        str(width): functools.partial(grey_mobilenet, width) for width in WIDTHS
    },
}

WRONG = {
    "cross_validation_1": ["wide", "narrow", "linear", 300_000, "resnet18"],
    "cross_validation_2": [["a"], ["a", "c"], ["a", "b", "c", "d"], "all", [], 3],
    "cross_validation_3": [
        pairs,
        contents,
        of_train,
        positions,
        all_copies,
        by_sum,
        nearly,
        whether,
        lambda images, train, val: None,
    ],
    "cross_validation_4": [
        three_networks,
        one_for_all,
        {str(width): lambda: grey_mobilenet(width) for width in WIDTHS},  # noqa: B023
        {
            str(width): functools.partial(mobilenet_v3_small, width_mult=width, num_classes=10)
            for width in WIDTHS
        },
        {str(width): functools.partial(grey_mobilenet, width, 1000) for width in WIDTHS},
        {"small": functools.partial(grey_mobilenet, 0.25)},
        [functools.partial(grey_mobilenet, width) for width in WIDTHS],
    ],
}
