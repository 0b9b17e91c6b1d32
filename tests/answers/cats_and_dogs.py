"""Right and typically wrong answers to the exercises of *cats and dogs*."""

import math

import torch
from torch import nn

from tlbook import freeze


def group_odds(logits, zero, one):
    return logits[:, one].logsumexp(1) - logits[:, zero].logsumexp(1)


def by_softmax_then_sum(logits, zero, one):
    p = logits.softmax(1)
    return (p[:, one].sum(1) / p[:, zero].sum(1)).log()


def ratio(logits, zero, one):
    return by_softmax_then_sum(logits, zero, one).exp()


def against_all_others(logits, zero, one):
    return torch.logit(logits.softmax(1)[:, one].sum(1))


def overflowing(logits, zero, one):
    return (logits[:, one].exp().sum(1) / logits[:, zero].exp().sum(1)).log()


def log_odds(share):
    return math.log(share / (1 - share))


def other_shares(odds, was, now):
    return odds - log_odds(was) + log_odds(now)


def norms_of(network):
    return [n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)]


def ready(network):
    return freeze(network, *norms_of(network))


def without_gradients_alone(network):
    for name in norms_of(network):
        network.get_submodule(name).requires_grad_(False)
    return network


def in_evaluation_mode(network):
    for name in norms_of(network):
        network.get_submodule(name).requires_grad_(False).eval()
    return network


def statistics_alone(network):
    for name in norms_of(network):
        freeze(network, name).get_submodule(name).requires_grad_(True)
    return network


RIGHT = {
    "cats_and_dogs_1": 3,
    "cats_and_dogs_2": ["c", "b", "f", "e", "a", "d"],
    "cats_and_dogs_3": group_odds,
    "cats_and_dogs_4": other_shares,
    "cats_and_dogs_5": ready,
}

WRONG = {
    "cats_and_dogs_1": [297, 2, 0.01, "3", 30],
    "cats_and_dogs_2": ["abcdef", ["c", "b", "f"], ["c", "b", "f", "a", "e", "d"], {"a"}, 6],
    "cats_and_dogs_3": [
        lambda logits, zero, one: group_odds(logits, one, zero),
        lambda logits, zero, one: logits[:, one].sum(1) - logits[:, zero].sum(1),
        lambda logits, zero, one: logits[:, one].amax(1) - logits[:, zero].amax(1),
        ratio,
        against_all_others,
        lambda logits, zero, one: logits.log_softmax(1)[:, one].logsumexp(1),
        overflowing,
        lambda logits, zero, one: torch.tensor(0.5),
        lambda logits, zero, one: None,
    ],
    "cats_and_dogs_4": [
        lambda odds, was, now: odds,
        lambda odds, was, now: odds - log_odds(was),
        lambda odds, was, now: odds + log_odds(now),
        lambda odds, was, now: other_shares(odds, now, was),
        lambda odds, was, now: odds + math.log(now / was),
        lambda odds, was, now: torch.sigmoid(other_shares(odds, was, now)),
        lambda odds, was, now: None,
    ],
    "cats_and_dogs_5": [
        lambda network: network,
        without_gradients_alone,
        in_evaluation_mode,
        statistics_alone,
        lambda network: freeze(network),
        lambda network: None,
    ],
}
