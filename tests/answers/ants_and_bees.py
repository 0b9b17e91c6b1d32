"""Right and typically wrong answers to the exercises of *ants and bees*."""

import numpy as np
import torch
from torch.nn import functional as F


def of_the_mean(members, targets):
    return float(((np.mean(members, axis=0) > 0) == (targets == 1)).mean())


def mean_of_accuracies(members, targets):
    return float(np.mean([((member > 0) == (targets == 1)).mean() for member in members]))


def vote(members, targets):
    votes = np.mean([member > 0 for member in members], axis=0)
    return float(((votes > 0.5) == (targets == 1)).mean())


def exchanged(members, targets):
    return float(((np.mean(members, axis=0) < 0) == (targets == 1)).mean())


def against_one_half(members, targets):
    return float(((np.mean(members, axis=0) > 0.5) == (targets == 1)).mean())


def mean_of_probabilities(members, targets):
    p = np.mean([1 / (1 + np.exp(-member)) for member in members], axis=0)
    return float(((p > 0.5) == (targets == 1)).mean())


def side_by_side(backbone, images, sides, *, antialias=True, mode=True, dim=1):
    training = backbone.training
    if mode:
        backbone.eval()
    shown = [F.interpolate(images, (s, s), mode="bilinear", antialias=antialias) for s in sides]
    with torch.no_grad():
        found = torch.cat([backbone(batch) for batch in shown], dim=dim)
    backbone.train(training)
    return found


def left_in_evaluation(backbone, images, sides):
    found = side_by_side(backbone.eval(), images, sides)
    backbone.eval()
    return found


def with_a_graph(backbone, images, sides):
    training = backbone.training
    backbone.eval()
    found = torch.cat([backbone(F.interpolate(images, (s, s), mode="bilinear", antialias=True))
                       for s in sides], dim=1)  # fmt: skip
    backbone.train(training)
    return found


def mean_of_sizes(backbone, images, sides):
    return side_by_side(backbone, images, sides).unflatten(1, (len(sides), -1)).mean(1)


RIGHT = {
    "ants_and_bees_1": 7,
    "ants_and_bees_2": ["b", "c", "e"],
    "ants_and_bees_3": of_the_mean,
    "ants_and_bees_4": side_by_side,
}

WRONG = {
    "ants_and_bees_1": [146, 7.038, 5, "7", 153],
    "ants_and_bees_2": [["b"], ["b", "c"], "all", ["a", "b", "c", "e"], {"b", "c", "e", "f"}, 3],
    "ants_and_bees_3": [
        mean_of_accuracies,
        vote,
        exchanged,
        against_one_half,
        mean_of_probabilities,
        lambda members, targets: np.mean(members, axis=0),
        lambda members, targets: None,
    ],
    "ants_and_bees_4": [
        mean_of_sizes,
        left_in_evaluation,
        with_a_graph,
        lambda backbone, images, sides: side_by_side(backbone, images, sides, mode=False),
        lambda backbone, images, sides: side_by_side(backbone, images, sides, antialias=False),
        lambda backbone, images, sides: side_by_side(backbone, images, sides[::-1]),
        lambda backbone, images, sides: side_by_side(backbone, images, sides, dim=0),
        lambda backbone, images, sides: None,
    ],
}
