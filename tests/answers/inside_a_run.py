"""Right and typically wrong answers to the exercises of *inside_a_run*."""

import copy

import torch
from torchvision.models.feature_extraction import create_feature_extractor


def activation(model, path, x):
    found = {}

    def keep(module, inputs, output):
        found["output"] = output.detach().clone()

    with torch.no_grad(), model.get_submodule(path).register_forward_hook(keep):
        model(x)
    return found["output"]


def activation_overwritten(model, path, x):
    found = {}

    def keep(module, inputs, output):
        found["output"] = output.detach()

    with model.get_submodule(path).register_forward_hook(keep):
        model(x)
    return found["output"]


def activation_with_graph(model, path, x):
    found = {}

    def keep(module, inputs, output):
        found["output"] = output.clone()

    with model.get_submodule(path).register_forward_hook(keep):
        model(x)
    return found["output"]


def activation_that_stays(model, path, x):
    found = {}

    def keep(module, inputs, output):
        found["output"] = output.detach().clone()

    model.get_submodule(path).register_forward_hook(keep)
    model(x)
    return found["output"]


def activation_that_stays_after_a_failure(model, path, x):
    found = {}

    def keep(module, inputs, output):
        found["output"] = output.detach().clone()

    handle = model.get_submodule(path).register_forward_hook(keep)
    model(x)
    handle.remove()
    return found["output"]


def activation_of_the_first_call(model, path, x):
    found = []

    def keep(module, inputs, output):
        found.append(output.detach().clone())

    with model.get_submodule(path).register_forward_hook(keep):
        model(x)
    return found[0]


def activation_in_evaluation_mode(model, path, x):
    model.eval()
    return activation(model, path, x)


def activation_in_evaluation_mode_and_back(model, path, x):
    training = model.training
    model.eval()
    found = activation(model, path, x)
    model.train(training)
    return found


def activation_that_returns(model, path, x):
    found = {}

    def keep(module, inputs, output):
        return found.setdefault("output", output.detach().clone())

    with model.get_submodule(path).register_forward_hook(keep):
        model(x)
    return found["output"]


def activation_of_a_copy(model, path, x):
    return activation(copy.deepcopy(model), path, x)


def activation_without_inplace(model, path, x):
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    return activation(model, path, x)


def activation_of_the_whole(model, path, x):
    with torch.no_grad():
        return model(x)


def activation_in_a_dictionary(model, path, x):
    return {path: activation(model, path, x)}


def activation_by_extractor(model, path, x):
    with torch.no_grad():
        return create_feature_extractor(model, [path])(x)[path]


SWIN = {
    "features.1": (1, 56, 56, 96),
    "features.3": (1, 28, 28, 192),
    "permute": (1, 768, 7, 7),
    "channels_last": ["features.1", "features.3"],
}
ADDS = [f"features.{number}.add" for number in (3, 5, 6, 8, 10, 11)]

RIGHT = {
    "inside_a_run_1": (1, 1024, 14, 14),
    "inside_a_run_2": ADDS,
    "inside_a_run_3": SWIN,
    "inside_a_run_4": {"path": "bn2.act", "zeros": 0.8901},
    "inside_a_run_5": activation,
}

WRONG = {
    "inside_a_run_1": [
        (1024, 14, 14),
        (1, 14, 14, 1024),
        (1, 512, 7, 7),
        (1, 256, 14, 14),
        (1, 1024, 7, 7),
        torch.zeros(1, 1024, 14, 14),
        "1, 1024, 14, 14",
    ],
    "inside_a_run_2": [
        ADDS[1:],
        ADDS[::-1],
        ["add"],
        ["add", "add_1", "add_2", "add_3", "add_4", "add_5"],
        [f"features.{number}" for number in (3, 5, 6, 8, 10, 11)],
        [*ADDS, "features.4.add"],
        6,
    ],
    "inside_a_run_3": [
        SWIN | {"features.1": (1, 96, 56, 56)},
        SWIN | {"features.3": (28, 28, 192)},
        SWIN | {"permute": (1, 7, 7, 768)},
        SWIN | {"channels_last": ["features.1", "features.3", "permute"]},
        {"features.1": (1, 56, 56, 96)},
        (1, 56, 56, 96),
    ],
    "inside_a_run_4": [
        {"path": "bn2", "zeros": 0.8901},
        {"path": "bn2.act", "zeros": 0.1099},
        {"path": "bn2.act", "zeros": 89.01},
        {"path": "bn2.act", "zeros": 89},
        {"path": "blocks.6.0.bn1.act", "zeros": 0.7963},
        {"path": "bn2.act"},
        0.89,
    ],
    "inside_a_run_5": [
        activation_overwritten,
        activation_with_graph,
        activation_that_stays,
        activation_that_stays_after_a_failure,
        activation_of_the_first_call,
        activation_in_evaluation_mode,
        activation_in_evaluation_mode_and_back,
        activation_that_returns,
        activation_of_a_copy,
        activation_without_inplace,
        activation_of_the_whole,
        activation_in_a_dictionary,
        activation_by_extractor,
    ],
}
