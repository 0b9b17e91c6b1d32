"""Right and typically wrong answers to the exercises of *really frozen*."""

import copy

from torch import nn
from torchvision.models import densenet121

from tlbook import freeze, replace_head, unfreeze

NORMS = nn.BatchNorm1d | nn.BatchNorm2d


def freeze_norms(model):
    paths = [path for path, module in model.named_modules() if isinstance(module, NORMS)]
    if paths:
        freeze(model, *paths)


def freeze_norms_or_everything(model):
    freeze(model, *(path for path, m in model.named_modules() if isinstance(m, NORMS)))


def switch_norms_off(model):
    for module in model.modules():
        if isinstance(module, NORMS):
            module.requires_grad_(False).eval()


def freeze_norms_of_the_surface(model):
    paths = [path for path, module in model.named_children() if isinstance(module, NORMS)]
    if paths:
        freeze(model, *paths)


def hold_statistics_only(model):
    freeze_norms(model)
    model.requires_grad_(True)


def freeze_norms_of_a_copy(model):
    model = copy.deepcopy(model)
    freeze_norms(model)
    return model


def half_frozen():
    model = replace_head(freeze(densenet121(weights=None)), 3)
    return unfreeze(model, "features.denseblock4", "features.norm5")


def half_frozen_head_too():
    model = freeze(replace_head(densenet121(weights=None), 3))
    return unfreeze(model, "features.denseblock4", "features.norm5")


def half_switched_off():
    model = replace_head(densenet121(weights=None).requires_grad_(False), 3)
    for part in (model.features.denseblock4, model.features.norm5):
        part.requires_grad_(True)
    return model


def old_head():
    model = freeze(densenet121(weights=None))
    return unfreeze(model, "features.denseblock4", "features.norm5", "classifier")


def without_norm5():
    model = replace_head(freeze(densenet121(weights=None)), 3)
    return unfreeze(model, "features.denseblock4")


def wrapped():
    return nn.Sequential(half_frozen())


BUILDERS = [
    half_frozen, half_frozen_head_too, half_switched_off, old_head, without_norm5, wrapped,
]  # fmt: skip
for builder in BUILDERS:
    builder.builds_answer = True

RIGHT = {
    "really_frozen_1": 5_125,
    "really_frozen_2": 363,
    "really_frozen_3": freeze_norms,
    "really_frozen_4": half_frozen,
}

WRONG = {
    "really_frozen_1": [5_120, 0, 2, 1_025_000, "5125"],
    "really_frozen_2": [0, 121, 242, 727, 364],
    "really_frozen_3": [
        freeze_norms_or_everything,
        switch_norms_off,
        freeze_norms_of_the_surface,
        hold_statistics_only,
        freeze_norms_of_a_copy,
        lambda model: None,
    ],
    "really_frozen_4": BUILDERS[1:],
}
