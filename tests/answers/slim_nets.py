"""Right and typically wrong answers to the exercises of *Slim nets and capacity*."""

import copy
import statistics

import torch
from torch import nn


def choose(candidates, deviation=statistics.stdev, middle=statistics.mean):
    means = {name: middle(runs) for name, (_, runs) in candidates.items()}
    best = max(means, key=means.get)
    least = means[best] - deviation(candidates[best][1])
    good = [name for name in means if means[name] >= least]
    return min(good, key=lambda name: candidates[name][0])


def choose_best(candidates):
    return max(candidates, key=lambda name: statistics.mean(candidates[name][1]))


def choose_smallest(candidates):
    return min(candidates, key=lambda name: candidates[name][0])


def choose_by_maximum(candidates):
    return choose(candidates, middle=max)


def choose_by_population(candidates):
    return choose(candidates, deviation=statistics.pstdev)


def choose_by_own_deviation(candidates):
    best = statistics.mean(candidates[choose_best(candidates)][1])
    good = [
        n
        for n, (_, runs) in candidates.items()
        if best - statistics.mean(runs) <= statistics.stdev(runs)
    ]
    return min(good, key=lambda name: candidates[name][0])


def pool_head(network, classes):
    convs = [layer for layer in network.features if isinstance(layer, nn.Conv2d)]
    network.avgpool = nn.AdaptiveAvgPool2d(1)
    network.classifier = nn.Linear(convs[-1].out_channels, classes)
    return network


def pool_head_only_last(network, classes):
    network.classifier[-1] = nn.Linear(4096, classes)


def pool_head_fixed_width(network, classes):
    network.avgpool = nn.AdaptiveAvgPool2d(1)
    network.classifier = nn.Linear(512, classes)


def pool_head_without_pooling(network, classes):
    pool_head(network, classes)
    network.avgpool = nn.Identity()


def pool_head_with_hidden_layer(network, classes):
    width = pool_head(network, classes).classifier.in_features
    network.classifier = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, classes))


def pool_head_of_a_copy(network, classes):
    network = copy.deepcopy(network)
    return pool_head(network, classes)


def pool_head_fresh_features(network, classes):
    pool_head(network, classes)
    network.features[0] = nn.Conv2d(3, 64, 11, stride=4, padding=2)


RIGHT = {
    "slim_nets_1": 1_195_972,
    "slim_nets_2": {"A": "overfits", "B": "underfits", "C": "too short", "D": "overfits"},
    "slim_nets_3": choose,
    "slim_nets_4": pool_head,
}

WRONG = {
    "slim_nets_1": [925_482, 1_194_948, 950_212, 163_780, "1195972", torch.tensor(1_196_996)],
    "slim_nets_2": [
        ["overfits", "underfits", "too short", "overfits"],
        {"A": "overfits", "B": "underfits", "C": "underfits", "D": "overfits"},
        {"A": "overfits", "B": "too short", "C": "too short", "D": "overfits"},
        {"A": "overfits", "B": "underfits", "C": "too short", "D": "underfits"},
        {"A": "overfitting", "B": "underfits", "C": "too short", "D": "overfits"},
    ],
    "slim_nets_3": [
        "slim",
        choose_best,
        choose_smallest,
        choose_by_own_deviation,
        choose_by_maximum,
        choose_by_population,
    ],
    "slim_nets_4": [
        nn.Linear(2, 2),
        pool_head_only_last,
        pool_head_fixed_width,
        pool_head_without_pooling,
        pool_head_with_hidden_layer,
        pool_head_of_a_copy,
        pool_head_fresh_features,
    ],
}
