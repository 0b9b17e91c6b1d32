"""Right and typically wrong answers to the exercises of *modules*."""

import copy

import torch
from torch import nn


def slow_down(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 0.01


def slow_down_children(network):
    for module in network.children():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 0.01


def slow_down_pictures_only(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.01


def slow_down_by_name(network):
    for path, module in network.named_modules():
        if "bn" in path:
            module.momentum = 0.01


def slow_down_the_network(network):
    network.momentum = 0.01


def slow_down_and_reset(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 0.01
            with torch.no_grad():
                module.weight.fill_(0.5)


def slow_down_and_soften(network):
    slow_down(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.01


def slow_down_with_a_new_layer(network):
    slow_down(network)
    network.add_module("norm", nn.BatchNorm2d(3, momentum=0.01))


def slow_down_every_module(network):
    for module in network.modules():
        module.momentum = 0.01


def slow_down_all_that_have_a_momentum(network):
    for module in network.modules():
        if hasattr(module, "momentum"):
            module.momentum = 0.01


def slow_down_and_freeze(network):
    slow_down(network)
    network.requires_grad_(False)


def slow_down_and_stop(network):
    slow_down(network)
    network.eval()


def slow_down_and_forget(network):
    slow_down(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_running_stats()


def slow_down_and_start_again(network):
    slow_down(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_parameters()


def slow_down_tenfold(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum *= 0.1


def slow_down_by_the_old_share(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 0.99


def slow_down_without_a_momentum(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None


def slow_down_a_copy(network):
    network = copy.deepcopy(network)
    slow_down(network)
    return network


RIGHT = {
    "modules_1": 26,
    "modules_2": {"parameters": 2_400, "bytes": 9_600, "mult_adds": 3_763_200},
    "modules_3": {"Conv2d": 27_480_832, "BatchNorm2d": 670_152, "Linear": 4_100_000},
    "modules_4": slow_down,
}

WRONG = {
    "modules_1": [0, 1, 2, 8, 18, 25, 52, 67, 68, [26]],
    "modules_2": [
        2_400,
        {"parameters": 2_400, "bytes": 9_600},
        {"parameters": 230_400, "bytes": 921_600, "mult_adds": 361_267_200},
        {"parameters": 2_496, "bytes": 9_984, "mult_adds": 3_763_200},
        {"parameters": 2_400, "bytes": 2_400, "mult_adds": 3_763_200},
        {"parameters": 2_400, "bytes": 9_600, "mult_adds": 470_400},
        {"parameters": 2_400, "bytes": 9_600, "mult_adds": 15_052_800},
        {"parameters": 2_400, "bytes": 9_600, "mult_adds": 7_526_400},
        {"parameters": 2_400, "bytes": 9_600, "mult_adds": 2_764_800},
        {"parameters": 2_400, "bytes": 9_600, "mult_adds": 3_244_800},
        {"parameters": 2_400, "bytes": 9_600, "mult_adds": 19_200},
        {"parameters": 2_400, "bytes": 76_800, "mult_adds": 3_763_200},
        {"parameters": 19_200, "bytes": 76_800, "mult_adds": 3_763_200},
    ],
    "modules_3": [
        32_250_984,
        {"Conv2d": 27_480_832, "Linear": 4_100_000},
        {"Conv2d": 27_480_832, "BatchNorm2d": 670_152, "Linear": 4_100_000, "_DenseLayer": 1},
        {"Conv2d": 27_480_832, "BatchNorm2d": 670_152, "Linear": 4_100_000, nn.ReLU: 0},
        {"Conv2d": 27_480_832, "BatchNorm2d": 670_152, "Linear": 4_100_000, "ReLU": 0},
        {"Conv2d": 27.48, "BatchNorm2d": 0.67, "Linear": 4.1},
        {"Conv2d": 6_870_208, "BatchNorm2d": 167_417, "Linear": 1_025_000},
        {"Conv2d": 27_480_832, "BatchNorm2d": 334_592, "Linear": 4_100_000},
        {"Conv2d": 27_480_832, "BatchNorm2d": 669_668, "Linear": 4_100_000},
        {"Conv2d": 27_480_832, "BatchNorm2d": 669_184, "Linear": 4_100_000},
    ],
    "modules_4": [
        nn.Linear(2, 2),
        slow_down_every_module,
        slow_down_all_that_have_a_momentum,
        slow_down_and_freeze,
        slow_down_and_stop,
        slow_down_and_forget,
        slow_down_and_start_again,
        slow_down_tenfold,
        slow_down_by_the_old_share,
        slow_down_without_a_momentum,
        slow_down_a_copy,
        slow_down_children,
        slow_down_pictures_only,
        slow_down_by_name,
        slow_down_the_network,
        slow_down_and_reset,
        slow_down_and_soften,
        slow_down_with_a_new_layer,
    ],
}
