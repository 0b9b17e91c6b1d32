"""Right and typically wrong answers to the exercises of *solar cells*."""

import numpy as np
import torch
from torch.utils.data import TensorDataset

from tlbook import predict

FLIPS = ((), (-1,), (-2,), (-1, -2))


def cost(risk, truth, threshold, price):
    called = risk >= threshold
    return price * np.sum(~called & (truth == 1)) + np.sum(called & (truth == 0))


def cheapest(risk, truth, price):
    return min([*np.unique(risk), np.inf], key=lambda t: cost(risk, truth, t, price))


def never_nothing(risk, truth, price):
    return min(np.unique(risk), key=lambda t: cost(risk, truth, t, price))


def prices_exchanged(risk, truth, price):
    return min([*risk, np.inf], key=lambda t: cost(risk, truth, t, 1 / price))


def on_a_coarse_grid(risk, truth, price):
    return min(np.linspace(0.1, 0.9, 9), key=lambda t: cost(risk, truth, t, price))


def with_relatives(groups, train, test):
    return np.isin(groups[test], groups[train]).mean()


def share_of_groups(groups, train, test):
    tested = set(groups[test])
    return len(tested & set(groups[train])) / len(tested)


def of_the_numbers(groups, train, test):
    return np.isin(test, train).mean()


def outputs(model, images, flips=FLIPS):
    views = [images.flip(flip) for flip in flips]
    return torch.stack([predict(model, TensorDataset(v, torch.zeros(len(v)))) for v in views])


def four_views(model, images):
    return outputs(model, images).softmax(dim=-1).mean(dim=0)


def in_training_mode(model, images):
    with torch.no_grad():
        return torch.stack([model(images.flip(f)).softmax(-1) for f in FLIPS]).mean(0)


def left_in_evaluation_mode(model, images):
    model.eval()
    return four_views(model, images)


def with_a_graph(model, images):
    model.eval()
    found = torch.stack([model(images.flip(f)).softmax(-1) for f in FLIPS]).mean(0)
    model.train()
    return found


RIGHT = {
    "solar_cells_1": 0.1,
    "solar_cells_2": cheapest,
    "solar_cells_3": with_relatives,
    "solar_cells_4": four_views,
}

WRONG = {
    "solar_cells_1": [0.5, 0.9, 1 / 9, 9, 10, "0.1", 0.2],
    "solar_cells_2": [
        lambda risk, truth, price: 0.5,
        lambda risk, truth, price: 1 / (1 + price),
        never_nothing,
        prices_exchanged,
        on_a_coarse_grid,
        lambda risk, truth, price: None,
    ],
    "solar_cells_3": [
        share_of_groups,
        of_the_numbers,
        lambda groups, train, test: 1 - with_relatives(groups, train, test),
        lambda groups, train, test: np.isin(groups[test], groups[train]).sum(),
        lambda groups, train, test: np.isin(groups[test], groups[train]),
        lambda groups, train, test: 1.0,
    ],
    "solar_cells_4": [
        lambda model, images: outputs(model, images).mean(0),
        lambda model, images: outputs(model, images).mean(0).softmax(-1),
        lambda model, images: outputs(model, images, FLIPS[:1]).softmax(-1).mean(0),
        lambda model, images: outputs(model, images, FLIPS[:3]).softmax(-1).mean(0),
        lambda model, images: outputs(model, images).softmax(-1),
        in_training_mode,
        left_in_evaluation_mode,
        with_a_graph,
    ],
}
