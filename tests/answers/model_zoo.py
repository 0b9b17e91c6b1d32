"""Right and typically wrong answers to the exercises of *The model zoo*."""

import torch
from torch import nn
from torchvision import models


def accuracy_of(weights):
    return weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]


def sizes(accuracy, names):
    metas = {name: models.get_model_weights(name).DEFAULT for name in names}
    return {name: w.meta["num_params"] for name, w in metas.items() if accuracy_of(w) > accuracy}


def smallest(accuracy):
    enough = sizes(accuracy, models.list_models(module=models))
    return min(enough, key=enough.get, default=None)


def smallest_or_error(accuracy):
    enough = sizes(accuracy, models.list_models(module=models))
    return min(enough, key=enough.get)


def smallest_or_equal(accuracy):
    return smallest(accuracy - 1e-9)


def smallest_size(accuracy):
    return min(sizes(accuracy, models.list_models(module=models)).values(), default=None)


def largest(accuracy):
    enough = sizes(accuracy, models.list_models(module=models))
    return max(enough, key=enough.get, default=None)


def smallest_by_best_weights(accuracy):
    enough = {
        name: w.meta["num_params"]
        for name in models.list_models(module=models)
        for w in models.get_model_weights(name)
        if not accuracy_of(w) <= accuracy
    }
    return min(enough, key=enough.get, default=None)


def smallest_by_name(accuracy):
    return min(sizes(accuracy, models.list_models(module=models)), default=None)


def smallest_of_all_families(accuracy):
    return min(sizes(accuracy, models.list_models()), default=None)


def always_squeezenet(accuracy):
    return "squeezenet1_1"


def first_conv(model):
    return next(m for m in model.modules() if isinstance(m, nn.Conv2d))


def dead_filters(model):
    norms = first_conv(model).weight.detach().flatten(1).norm(dim=1)
    return int((norms < 0.01 * norms.median()).sum())


def dead_by_a_fixed_bound(model):
    norms = first_conv(model).weight.detach().flatten(1).norm(dim=1)
    return int((norms < 0.001).sum())


def dead_against_the_mean(model):
    norms = first_conv(model).weight.detach().flatten(1).norm(dim=1)
    return int((norms < 0.01 * norms.mean()).sum())


def dead_everywhere(model):
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    norms = [m.weight.detach().flatten(1).norm(dim=1) for m in convs]
    return sum(int((n < 0.01 * n.median()).sum()) for n in norms)


def dead_weights(model):
    weight = first_conv(model).weight.detach().abs()
    return int((weight < 0.01 * weight.median()).sum())


def dead_against_the_mean_of_kernels(model):
    kernels = first_conv(model).weight.detach().flatten(2).norm(dim=2)
    return int((kernels < 0.01 * kernels.median()).sum())


def dead_by_name(model):
    norms = model.conv_stem.weight.detach().flatten(1).norm(dim=1)
    return int((norms < 0.01 * norms.median()).sum())


def dead_list(model):
    norms = first_conv(model).weight.detach().flatten(1).norm(dim=1)
    return (norms < 0.01 * norms.median()).tolist()


def dead_and_buried(model):
    found = dead_filters(model)
    with torch.no_grad():
        first_conv(model).weight.zero_()
    return found


RIGHT = {
    "model_zoo_1": {"builders": 5, "weights": 10, "crop": 384},
    "model_zoo_2": {"densenet169": 5, "mobilenet_v3_small": 5, "squeezenet1_1": 4},
    "model_zoo_3": smallest,
    "model_zoo_4": dead_filters,
}

WRONG = {
    "model_zoo_1": [
        5,
        {"builders": 5, "weights": 10},
        {"builders": 0, "weights": 0, "crop": 384},
        {"builders": 8, "weights": 13, "crop": 384},
        {"builders": 5, "weights": 13, "crop": 384},
        {"builders": 5, "weights": 5, "crop": 384},
        {"builders": 5, "weights": 15, "crop": 384},
        {"builders": 5, "weights": 10, "crop": 224},
        {"builders": 5, "weights": 10, "crop": [384]},
    ],
    "model_zoo_2": [
        [5, 5, 4],
        {"densenet169": 6, "mobilenet_v3_small": 5, "squeezenet1_1": 4},
        {"densenet169": 4, "mobilenet_v3_small": 5, "squeezenet1_1": 4},
        {"densenet169": 5, "mobilenet_v3_small": 4, "squeezenet1_1": 4},
        {"densenet169": 5, "mobilenet_v3_small": 5, "squeezenet1_1": 3},
        {"densenet169": 5, "mobilenet_v3_small": 5, "squeezenet1_1": 5},
    ],
    "model_zoo_3": [
        "efficientnet_b2",
        smallest_or_error,
        smallest_or_equal,
        smallest_size,
        largest,
        smallest_by_best_weights,
        smallest_by_name,
        smallest_of_all_families,
        always_squeezenet,
    ],
    "model_zoo_4": [
        4,
        nn.Conv2d(3, 8, 3),
        dead_by_a_fixed_bound,
        dead_against_the_mean,
        dead_everywhere,
        dead_weights,
        dead_against_the_mean_of_kernels,
        dead_by_name,
        dead_list,
        dead_and_buried,
    ],
}
