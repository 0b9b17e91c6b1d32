"""Right and typically wrong answers to the exercises of *better at the end*."""

import copy

import numpy as np
import torch


@torch.no_grad()
def update(average, network, decay):
    theirs = network.state_dict()
    for name, own in average.state_dict().items():
        if own.is_floating_point():
            own.lerp_(theirs[name], 1 - decay)
        else:
            own.copy_(theirs[name])


@torch.no_grad()
def parameters_alone(average, network, decay):
    for own, other in zip(average.parameters(), network.parameters(), strict=True):
        own.lerp_(other, 1 - decay)


@torch.no_grad()
def copied_buffers(average, network, decay):
    parameters_alone(average, network, decay)
    for own, other in zip(average.buffers(), network.buffers(), strict=True):
        own.copy_(other)


@torch.no_grad()
def turned_round(average, network, decay):
    update(average, network, 1 - decay)


@torch.no_grad()
def network_instead(average, network, decay):
    update(network, average, decay)


def copied(average, network, decay):
    average.load_state_dict(network.state_dict())


def modes_of(network):
    return {module: module.training for module in network.modules()}


def ask(network, images, views):
    modes = modes_of(network)
    network.eval()
    with torch.no_grad():
        mean = torch.stack([network(view(images)).softmax(1) for view in views]).mean(0)
    for module, mode in modes.items():
        module.training = mode
    return mean


def ask_in_training(network, images, views):
    with torch.no_grad():
        return torch.stack([network(view(images)).softmax(1) for view in views]).mean(0)


def ask_and_train(network, images, views):
    mean = ask(network, images, views)
    network.train()
    return mean


def ask_logits(network, images, views):
    with torch.no_grad():
        copied = copy.deepcopy(network).eval()
        return torch.stack([copied(view(images)) for view in views]).mean(0).softmax(1)


def ask_with_graph(network, images, views):
    copied = copy.deepcopy(network).eval()
    return torch.stack([copied(view(images)).softmax(1) for view in views]).mean(0)


def ask_once(network, images, views):
    return ask(network, images, views[:1])


def ask_for_classes(network, images, views):
    return ask(network, images, views).argmax(1)


def gaps(p, labels, bins):
    confidence, is_right = p.max(axis=1), p.argmax(axis=1) == labels
    which = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence)
    chosen = [which == b for b in range(bins) if (which == b).any()]
    return np.array(
        [(c.sum(), abs(confidence[c].mean() - is_right[c].mean())) for c in chosen], dtype=float
    ).T


def top_error(p, labels, bins):
    count, gap = gaps(p, labels, bins)
    return (count * gap).sum() / count.sum()


def unweighted(p, labels, bins):
    return gaps(p, labels, bins)[1].mean()


def over_all_bins(p, labels, bins):
    return gaps(p, labels, bins)[1].sum() / bins


def one_bin(p, labels, bins):
    return top_error(p, labels, 1)


def brier(p, labels, bins):
    return ((p - np.eye(p.shape[1])[labels]) ** 2).sum(axis=1).mean()


RIGHT = {
    "better_at_the_end_1": 0.45,
    "better_at_the_end_2": update,
    "better_at_the_end_3": ask,
    "better_at_the_end_4": top_error,
}

WRONG = {
    "better_at_the_end_1": [0.2, 0.55, 44.9, 0.998, "0.45"],
    "better_at_the_end_2": [
        parameters_alone,
        copied_buffers,
        turned_round,
        network_instead,
        copied,
        lambda average, network, decay: None,
    ],
    "better_at_the_end_3": [
        ask_in_training,
        ask_and_train,
        ask_logits,
        ask_with_graph,
        ask_once,
        ask_for_classes,
        lambda network, images, views: None,
    ],
    "better_at_the_end_4": [unweighted, over_all_bins, one_bin, brier, lambda p, labels, bins: p],
}
