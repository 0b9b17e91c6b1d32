"""Right and typically wrong answers to the exercises of the clinic of networks."""

import copy

import torch
from torch import nn

from tlbook import (
    delete,
    freeze,
    get_head,
    load_weights,
    replace,
    replace_head,
    replace_stem,
    trainable_parameters,
)


def headless(model):
    copied = copy.deepcopy(model)
    return replace(copied, get_head(copied).path, nn.Identity())


def children_but_the_last(model):
    return nn.Sequential(*list(copy.deepcopy(model).children())[:-1])


def children_pooled_without_a_copy(model):
    parts = list(model.children())[:-1]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def classifier_deleted(model):
    copied = copy.deepcopy(model)
    del copied.classifier
    return copied


def headless_by_one_name(model):
    copied = copy.deepcopy(model)
    copied.classifier = nn.Identity()
    return copied


def headless_in_place(model):
    return replace(model, get_head(model).path, nn.Identity())


class Sharing(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = copy.deepcopy(model)
        for path, layer in model.named_modules():
            if path and path != get_head(model).path and not list(layer.children()):
                self.model.set_submodule(path, layer)
        delete(self.model, get_head(model).path)

    def forward(self, x):
        return self.model(x)


def features_of_one_batch(model):
    return headless(model).eval()(torch.rand(3, 3, 32, 32))


def load(model, state):
    load_weights(model, state, strip_prefixes=("module.", "_orig_mod."))


def load_loosely(model, state):
    model.load_state_dict(state, strict=False)


def load_one_prefix(model, state):
    model.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})


def load_with_lstrip(model, state):
    letters = "_orig_module."
    model.load_state_dict({key.lstrip(letters): value for key, value in state.items()})


def load_without_the_first_name(model, state):
    model.load_state_dict({key.partition(".")[2]: value for key, value in state.items()})


def load_with_replace(model, state):
    replaced = {k.replace("module.", "").replace("_orig_mod.", ""): v for k, v in state.items()}
    model.load_state_dict(replaced)


def load_with_strip_and_loosely(model, state):
    load_weights(model, state, strip_prefixes=("module.", "_orig_mod."), strict=False)


def load_and_empty(model, state):
    load(model, state)
    state.clear()


def load_into_a_copy(model, state):
    load(copy.deepcopy(model), state)


def mend(model):
    del model.classes
    replace(model, "features.4", copy.deepcopy(model.features[4]))
    replace_stem(model, in_channels=1)
    replace_head(model, 5)
    freeze(model, "features")
    return torch.optim.SGD(trainable_parameters(model), lr=0.01)


def mend_a_copy(model):
    return mend(copy.deepcopy(model))


def mend_the_attribute(model):
    del model.classes
    replace(model, "features.4", copy.deepcopy(model.features[4]))
    model.features[0][0].in_channels = 3
    replace_head(model, 5)
    freeze(model, "features")
    return torch.optim.SGD(trainable_parameters(model), lr=0.01)


def mend_the_layer_that_never_runs(model):
    replace_stem(model, in_channels=1)
    replace_head(model, 5)
    freeze(model, "features")
    return torch.optim.SGD(trainable_parameters(model), lr=0.01)


def mend_nothing(model):
    return torch.optim.SGD(model.parameters(), lr=0.01)


def mend_without_an_optimizer(model):
    mend(model)


def mend_with_adam(model):
    mend(model)
    return torch.optim.Adam(trainable_parameters(model))


def mend_with_a_fresh_stem(model):
    optimizer = mend(model)
    model.features[0][0].reset_parameters()
    return optimizer


def mend_with_an_early_optimizer(model):
    optimizer = torch.optim.SGD(trainable_parameters(model), lr=0.01)
    mend(model)
    return optimizer


def mend_half_frozen(model):
    del model.classes
    replace(model, "features.4", copy.deepcopy(model.features[4]))
    replace_stem(model, in_channels=1)
    replace_head(model, 5)
    model.features.requires_grad_(False)
    return torch.optim.SGD(trainable_parameters(model), lr=0.01)


def mend_with_the_donors_block(model):
    del model.classes
    replace_stem(model, in_channels=1)
    replace_head(model, 5)
    freeze(model, "features")
    return torch.optim.SGD(trainable_parameters(model), lr=0.01)


def mend_with_a_thousand_scores_between(model):
    mend(model)
    replace_head(model, 1000)
    model.classifier.append(nn.Linear(1000, 4))
    return torch.optim.SGD(trainable_parameters(model), lr=0.01)


def mend_and_freeze_too_much(model):
    mend(model)
    freeze(model, "classifier.0")
    return torch.optim.SGD(trainable_parameters(model), lr=0.01)


NAMES = {"a": "K11", "b": "K2", "c": "K10", "d": "K3", "e": "K18", "f": "K14"}

RIGHT = {
    "networks_1": NAMES,
    "networks_2": headless,
    "networks_3": load,
    "networks_4": mend,
}

WRONG = {
    "networks_1": [
        "K11",
        {"a": "K11"},
        NAMES | {"a": "K12"},
        NAMES | {"b": "K4"},
        NAMES | {"c": "K9"},
        NAMES | {"d": "K17"},
        NAMES | {"e": 18},
        NAMES | {"f": "K1"},
    ],
    "networks_2": [
        nn.Linear(2, 2),
        children_but_the_last,
        children_pooled_without_a_copy,
        classifier_deleted,
        headless_by_one_name,
        headless_in_place,
        Sharing,
        features_of_one_batch,
    ],
    "networks_3": [
        load_loosely,
        load_one_prefix,
        load_with_lstrip,
        load_without_the_first_name,
        load_with_replace,
        load_with_strip_and_loosely,
        load_and_empty,
        load_into_a_copy,
    ],
    "networks_4": [
        mend_nothing,
        mend_a_copy,
        mend_the_attribute,
        mend_the_layer_that_never_runs,
        mend_without_an_optimizer,
        mend_with_adam,
        mend_with_a_fresh_stem,
        mend_with_an_early_optimizer,
        mend_half_frozen,
        mend_with_the_donors_block,
        mend_with_a_thousand_scores_between,
        mend_and_freeze_too_much,
    ],
}
