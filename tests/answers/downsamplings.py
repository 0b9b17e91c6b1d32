"""Right and typically wrong answers to the exercises of *Too many down-samplings*."""

import copy

import torch
from torch import nn


def count(network, counts, *, clean=True):
    steps, modes = [], {module: module.training for module in network.modules()}

    def watch(layer, inputs, output):
        before, after = inputs[0].shape, output.shape
        if len(before) == len(after) == 4 and after[2] < before[2] and counts(layer, after, steps):
            steps.append(after[2])

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(watch) for leaf in leaves]
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, 224, 224, device=next(network.parameters()).device))
    if clean:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return len(steps)


def is_step(layer, after, steps):
    return not isinstance(layer, nn.AdaptiveAvgPool2d) and after[2] < min(steps, default=224)


def count_steps(network):
    return count(network, is_step)


def count_as_tensor(network):
    return torch.tensor(count_steps(network))


def count_with_hooks_left(network):
    return count(network, is_step, clean=False)


def count_with_shortcuts(network):
    return count(network, lambda layer, after, steps: not isinstance(layer, nn.AdaptiveAvgPool2d))


def count_with_global_pooling(network):
    return count(network, lambda layer, after, steps: after[2] < min(steps, default=224))


def count_strides(network):
    return sum(getattr(module, "stride", 1) in (2, (2, 2)) for module in network.modules())


def count_in_another_mode(network):
    steps = count_steps(network)
    network.eval()
    return steps


def strided(network):
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return [layer for layer in layers if layer.stride == (2, 2)]


def gentler(network):
    for conv in strided(network)[:2]:
        conv.stride = (1, 1)


def gentler_at_the_end(network):
    for conv in strided(network)[-2:]:
        conv.stride = 1, 1
    return network


def gentler_once(network):
    strided(network)[0].stride = (1, 1)


def gentler_everywhere(network):
    for conv in strided(network):
        conv.stride = (1, 1)


def gentler_copy(network):
    network = copy.deepcopy(network)
    gentler(network)
    return network


def gentler_fresh(network):
    gentler(network)
    network.features[0][0] = nn.Conv2d(3, 16, 3, padding=1, bias=False)


def gentler_by_deleting(network):
    del network.features[1]


RIGHT = {
    "downsamplings_1": {"efficientnet_b0": 3, "squeezenet1_1": 4, "vgg16_bn": 2},
    "downsamplings_2": {"shufflenet_v2_x1_0": 97, "squeezenet1_1": 65, "convnext_tiny": 128},
    "downsamplings_3": {"field": 22, "jump": 4},
    "downsamplings_4": count_steps,
    "downsamplings_5": gentler,
}

WRONG = {
    "downsamplings_1": [
        3,
        {"efficientnet_b0": 2, "squeezenet1_1": 4, "vgg16_bn": 2},
        {"efficientnet_b0": 3, "squeezenet1_1": 5, "vgg16_bn": 2},
        {"efficientnet_b0": 3, "squeezenet1_1": 4, "vgg16_bn": 7},
        {"efficientnet_b0": 3, "vgg16_bn": 2},
    ],
    "downsamplings_2": [
        {"shufflenet_v2_x1_0": 128, "squeezenet1_1": 65, "convnext_tiny": 128},
        {"shufflenet_v2_x1_0": 97, "squeezenet1_1": 64, "convnext_tiny": 128},
        {"shufflenet_v2_x1_0": 97, "squeezenet1_1": 65, "convnext_tiny": 97},
    ],
    "downsamplings_3": [
        22,
        {"field": 12, "jump": 4},
        {"field": 21, "jump": 4},
        {"field": 22, "jump": 2},
    ],
    "downsamplings_4": [
        nn.Linear(2, 2),
        count_with_hooks_left,
        count_with_shortcuts,
        count_with_global_pooling,
        count_strides,
        count_in_another_mode,
    ],
    "downsamplings_5": [
        nn.Linear(2, 2),
        gentler_once,
        gentler_everywhere,
        gentler_copy,
        gentler_fresh,
        gentler_by_deleting,
    ],
}
