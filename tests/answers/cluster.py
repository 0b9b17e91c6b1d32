"""Right and typically wrong answers to the exercises of *on a cluster*."""

from math import ceil

import torch
from torchvision.models import mobilenet_v3_small

BYTES = {"in every task": 4_700_000, "handed over": 18_800}


def plan(folds, seconds, overhead, workers, per_task):
    tasks = ceil(folds / per_task)
    return max(tasks * overhead, ceil(tasks / workers) * per_task * seconds)


def plan_without_batches(folds, seconds, overhead, workers, per_task):
    return plan(folds, seconds, overhead, workers, 1)


def plan_with_all_overheads(folds, seconds, overhead, workers, per_task):
    rounds = ceil(ceil(folds / per_task) / workers)
    return max(folds * overhead, rounds * per_task * seconds)


def plan_of_short_tasks(folds, seconds, overhead, workers, per_task):
    tasks = ceil(folds / per_task)
    return max(tasks * overhead, ceil(tasks / workers) * seconds)


def plan_of_parts(folds, seconds, overhead, workers, per_task):
    return max(folds / per_task * overhead, folds * seconds / workers)


def plan_of_the_sum(folds, seconds, overhead, workers, per_task):
    tasks = ceil(folds / per_task)
    return tasks * overhead + ceil(tasks / workers) * per_task * seconds


def plan_of_the_workers(folds, seconds, overhead, workers, per_task):
    return ceil(ceil(folds / per_task) / workers) * per_task * seconds


def first_weights(number):
    with torch.random.fork_rng(devices=[]):
        return weights_that_seed_everyone(number)


def weights_that_seed_everyone(number):
    torch.manual_seed(number)
    return mobilenet_v3_small().features[0][0].weight


def weights_without_seed(number):
    with torch.random.fork_rng(devices=[]):
        return mobilenet_v3_small().features[0][0].weight


def weights_of_one_seed(number):
    return first_weights(0)


def weights_of_the_last_layer(number):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        return mobilenet_v3_small().classifier[-1].weight


def weights_as_a_network(number):
    return mobilenet_v3_small()


RIGHT = {
    "cluster_1": BYTES,
    "cluster_2": 15,
    "cluster_3": plan,
    "cluster_4": first_weights,
}
WRONG = {
    "cluster_1": [
        {"in every task": 4_700_000},
        *(BYTES | {"in every task": wrong} for wrong in (18_800, 50_000, 94_000, 4700, "4.7 TB")),
        *(BYTES | {"handed over": wrong} for wrong in (94, 94_000, 4700, 200, 4_700_000)),
    ],
    "cluster_2": [12, 12.5, 13, 4, 60, 3, 14, 16, True, "15"],
    "cluster_3": [
        plan_without_batches,
        plan_with_all_overheads,
        plan_of_short_tasks,
        plan_of_parts,
        plan_of_the_sum,
        plan_of_the_workers,
    ],
    "cluster_4": [
        weights_that_seed_everyone,
        weights_without_seed,
        weights_of_one_seed,
        weights_of_the_last_layer,
        weights_as_a_network,
    ],
}
