"""Right and typically wrong answers to the exercises of *learning curves and cost*."""

import math

import numpy as np
from scipy.spatial.distance import cdist
from torchvision import models


def on_the_front():
    zoo = {}
    for name in models.list_models(module=models):
        meta = models.get_model_weights(name).DEFAULT.meta
        if meta["_ops"] <= 0.4:
            zoo[name] = meta["_ops"], meta["_metrics"]["ImageNet-1K"]["acc@1"]
    return [
        name for name, (cost, score) in zoo.items()
        if not any(c <= cost and s > score for c, s in zoo.values())
    ]  # fmt: skip


on_the_front.builds_answer = True


def ratios(points, first=1, second=2):
    between = np.sort(cdist(points, points), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(between[:, second] / between[:, first])


def two_nearest(points):
    return 1 / ratios(np.unique(points, axis=0)).mean()


def with_copies(points):
    return 1 / ratios(points).mean()


def without_their_originals(points):
    logs = ratios(points)
    return 1 / logs[np.isfinite(logs)].mean()


RIGHT = {
    "learning_curves_1": {"all": np.int64(1458), "halving": 216.0},
    "learning_curves_2": {"0.10": np.float64(14_398.7), "0.07": math.inf},
    "learning_curves_3": on_the_front,
    "learning_curves_4": two_nearest,
}

WRONG = {
    "learning_curves_1": [
        {"halving": 54, "all": 1458},
        {"halving": 162, "all": 1458},
        {"halving": 1458, "all": 216},
        {"halving": 216, "all": 54},
        {"halving": 2160, "all": 1458},
        {"halving": 216, "all": 2160},
        {"halving": 216},
        {"halving": "216", "all": 1458},
        (216, 1458),
    ],
    "learning_curves_2": [
        {"0.10": 3519, "0.07": math.inf},
        {"0.10": 576, "0.07": math.inf},
        {"0.10": 14_400, "0.07": 100_000},
        {"0.10": math.inf, "0.07": math.inf},
        {"0.10": math.nan, "0.07": math.nan},
        {"0.10": 0, "0.07": 0},
        {"0.10": None, "0.07": None},
        14_400,
    ],
    "learning_curves_3": [
        ["mobilenet_v3_small", "efficientnet_b0"],
        ["squeezenet1_1", "shufflenet_v2_x1_5"],
        ["resnet18"],
        ["no_such_network"],
        "efficientnet_b0",
        7,
    ],
    "learning_curves_4": [
        with_copies,
        without_their_originals,
        lambda points: 1 / ratios(np.unique(points, axis=0), 0, 1).mean(),
        lambda points: ratios(np.unique(points, axis=0)).mean(),
        lambda points: 1 / ratios(np.unique(points, axis=0), 1, 10).mean(),
        lambda points: "three",
        lambda points: None,
        3.0,
    ],
}  # fmt: skip
