"""Right and typically wrong answers to the exercises of *more than one device*."""

SIZE = 10_171_424  # bytes of the gradient of mobilenet_v3_small
LAUNCH = {"processes": 32, "global_batch": 2048, "steps": 25, "too_many": 16, "local_rank": 3}


def weighted(counts, values):
    return sum(n * v for n, v in zip(counts, values, strict=True)) / sum(counts)


def pool(counts, means, variances):
    mean = weighted(counts, means)
    return mean, weighted(counts, [v + (m - mean) ** 2 for v, m in zip(variances, means)])  # noqa: B905


def pool_plainly(counts, means, variances):
    return sum(means) / len(means), sum(variances) / len(variances)


def pool_within(counts, means, variances):
    return weighted(counts, means), weighted(counts, variances)


def pool_unbiased(counts, means, variances):
    mean, variance = pool(counts, means, variances)
    return mean, variance * sum(counts) / (sum(counts) - 1)


def pool_deviation(counts, means, variances):
    mean, variance = pool(counts, means, variances)
    return mean, variance**0.5


def pool_the_variance_alone(counts, means, variances):
    return pool(counts, means, variances)[1]


def unwrap(state):
    if not all(key.startswith("module.") for key in state):
        return dict(state)
    return {key.removeprefix("module."): value for key, value in state.items()}


def unwrap_everywhere(state):
    return {key.replace("module.", ""): value for key, value in state.items()}


def unwrap_always(state):
    return {key.removeprefix("module."): value for key, value in state.items()}


def unwrap_by_length(state):
    return {key[7:]: value for key, value in state.items()}


def unwrap_in_place(state):
    for key in list(state):
        state[key.removeprefix("module.")] = state.pop(key)
    return state


def unwrap_to_zeros(state):
    return {key: 0 * value - 1 for key, value in unwrap(state).items()}


def unwrap_keys(state):
    return list(unwrap(state))


RIGHT = {
    "more_devices_1": 1.75 * SIZE,
    "more_devices_2": LAUNCH,
    "more_devices_3": pool,
    "more_devices_4": unwrap,
}
WRONG = {
    "more_devices_1": [
        *(factor * SIZE for factor in (1, 0.875, 2, 14, 7, 1.75 / 4, 1.5)),
        17.8,
        "17.8 MB",
        True,
    ],
    "more_devices_2": [
        {"processes": 32},
        LAUNCH | {"processes": 8},
        LAUNCH | {"global_batch": 512},
        LAUNCH | {"steps": 24},
        LAUNCH | {"steps": 782},
        LAUNCH | {"too_many": 0},
        LAUNCH | {"too_many": 1200},
        LAUNCH | {"local_rank": 19},
        LAUNCH | {"local_rank": "3"},
    ],
    "more_devices_3": [
        pool_plainly,
        pool_within,
        pool_unbiased,
        pool_deviation,
        pool_the_variance_alone,
    ],
    "more_devices_4": [
        dict,
        unwrap_everywhere,
        unwrap_always,
        unwrap_by_length,
        unwrap_in_place,
        unwrap_to_zeros,
        unwrap_keys,
    ],
}
