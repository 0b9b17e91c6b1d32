"""Right and typically wrong answers to the exercises of *when transfer helps*."""

import numpy as np
from scipy import stats

from tlbook import freeze


def paired(first, second, degrees=4, ddof=1):
    difference = np.subtract(first, second)
    error = difference.std(ddof=ddof) / np.sqrt(len(difference))
    half = stats.t.ppf(0.975, degrees) * error
    return difference.mean() - half, difference.mean() + half


def with_normal(first, second):
    return paired(first, second, degrees=1_000_000)


def unpaired(first, second):
    error = np.sqrt((np.var(first, ddof=1) + np.var(second, ddof=1)) / len(first))
    middle = np.mean(first) - np.mean(second)
    return middle - 2.306 * error, middle + 2.306 * error


def harms(transfer, scratch):
    return [n for n in sorted(transfer) if paired(transfer[n], scratch[n])[1] < 0]


def by_the_mean(transfer, scratch):
    return [n for n in sorted(transfer) if np.mean(transfer[n]) < np.mean(scratch[n])]


def by_unpaired(transfer, scratch):
    return [n for n in sorted(transfer) if unpaired(transfer[n], scratch[n])[1] < 0]


def lend(autoencoder, network):
    network.encoder.load_state_dict(autoencoder.encoder.state_dict())
    return freeze(network, "encoder")


def lend_the_module(autoencoder, network):
    network.encoder = autoencoder.encoder
    return freeze(network, "encoder")


def half_a_freeze(autoencoder, network):
    network.encoder.load_state_dict(autoencoder.encoder.state_dict())
    network.encoder.requires_grad_(False)
    return network


def parameters_alone(autoencoder, network):
    given = dict(autoencoder.encoder.named_parameters())
    network.encoder.load_state_dict(given, strict=False)
    return freeze(network, "encoder")


def not_frozen(autoencoder, network):
    network.encoder.load_state_dict(autoencoder.encoder.state_dict())
    return network


def all_frozen(autoencoder, network):
    return freeze(lend(autoencoder, network))


RIGHT = {
    "when_it_helps_1": ["b", "e"],
    "when_it_helps_2": paired,
    "when_it_helps_3": harms,
    "when_it_helps_4": lend,
}

WRONG = {
    "when_it_helps_1": [["b"], ["b", "e", "f"], ["a", "b", "e"], "c", ["g"], []],
    "when_it_helps_2": [
        with_normal,
        unpaired,
        lambda first, second: paired(second, first),
        lambda first, second: paired(first, second, degrees=5),
        lambda first, second: paired(first, second, ddof=0),
        lambda first, second: np.mean(first) - np.mean(second),
    ],
    "when_it_helps_3": [
        by_the_mean,
        by_unpaired,
        lambda transfer, scratch: harms(transfer, scratch)[::-1],
        lambda transfer, scratch: harms(scratch, transfer),
        lambda transfer, scratch: len(harms(transfer, scratch)),
    ],
    "when_it_helps_4": [
        lend_the_module,
        half_a_freeze,
        parameters_alone,
        not_frozen,
        all_frozen,
        lambda autoencoder, network: freeze(network, "encoder"),
        lambda autoencoder, network: lend(autoencoder, network).encoder,
    ],
}
