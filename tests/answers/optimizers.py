"""Right and typically wrong answers to the exercises of *optimizers and schedules*."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR


def rate(step, peak, warm_up, total):
    if step < warm_up:
        return peak * (step + 1) / warm_up
    share = (step - warm_up) / (total - warm_up)
    return peak * (1 + math.cos(math.pi * share)) / 2


def rate_from_zero(step, peak, warm_up, total):
    return peak * step / warm_up if step < warm_up else rate(step, peak, warm_up, total)


def rate_from_the_start(step, peak, warm_up, total):
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * (1 + math.cos(math.pi * step / total)) / 2


def rate_over_the_total(step, peak, warm_up, total):
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * (1 + math.cos(math.pi * (step - warm_up) / total)) / 2


def rate_in_a_line(step, peak, warm_up, total):
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * (1 - (step - warm_up) / (total - warm_up))


def rate_below_zero(step, peak, warm_up, total):
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * math.cos(math.pi * (step - warm_up) / (total - warm_up))


def rate_in_degrees(step, peak, warm_up, total):
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * (1 + math.cos(180 * (step - warm_up) / (total - warm_up))) / 2


def rate_that_prints(step, peak, warm_up, total):
    return str(rate(step, peak, warm_up, total))


def train_one_cycle(
    network, batches, epochs, *, per="batch", first=False, short=False, late=False, idle=False
):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    steps = epochs if short else epochs * len(batches)
    scheduler = OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
    used = []
    for _ in range(epochs):
        if per == "epoch" and first:
            scheduler.step()
        for inputs, targets in batches:
            optimizer.zero_grad()
            F.cross_entropy(network(inputs), targets).backward()
            if per == "batch" and first:
                scheduler.step()
            now = optimizer.param_groups[0]["lr"]
            if not idle:
                optimizer.step()
            if per == "batch" and not first:
                scheduler.step()
            used.append(optimizer.param_groups[0]["lr"] if late else now)
        if per == "epoch" and not first:
            scheduler.step()
    return used


def train_without_zero_grad(network, batches, epochs):
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    scheduler = OneCycleLR(optimizer, max_lr=0.1, total_steps=epochs * len(batches))
    used = []
    for _ in range(epochs):
        for inputs, targets in batches:
            F.cross_entropy(network(inputs), targets).backward()
            used.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return used


def train_and_say_nothing(network, batches, epochs):
    train_one_cycle(network, batches, epochs)


def decay_groups(network, decay):
    return [
        {"params": [p for p in network.parameters() if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in network.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]


def groups_by_name(network, decay):
    named = list(network.named_parameters())
    return [
        {"params": [p for n, p in named if "bias" not in n], "weight_decay": decay},
        {"params": [p for n, p in named if "bias" in n], "weight_decay": 0.0},
    ]


def groups_by_batchnorm(network, decay):
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    spared = {id(p) for norm in norms for p in norm.parameters()}
    return [
        {"params": [p for p in network.parameters() if id(p) not in spared], "weight_decay": decay},
        {"params": [p for p in network.parameters() if id(p) in spared], "weight_decay": 0.0},
    ]


def groups_without_the_rest(network, decay):
    return decay_groups(network, decay)[:1]


def groups_that_overlap(network, decay):
    matrices, others = decay_groups(network, decay)
    return [matrices | {"params": list(network.parameters())}, others]


def groups_of_convolutions(network, decay):
    return [
        {"params": [p for p in network.parameters() if p.ndim == 4], "weight_decay": decay},
        {"params": [p for p in network.parameters() if p.ndim != 4], "weight_decay": 0.0},
    ]


def groups_by_default(network, decay):
    matrices, others = decay_groups(network, decay)
    return [matrices, {"params": others["params"]}]


def groups_the_wrong_way_round(network, decay):
    matrices, others = decay_groups(network, decay)
    return [matrices | {"weight_decay": 0.0}, others | {"weight_decay": decay}]


RIGHT = {
    "optimizers_1": -0.122,
    "optimizers_2": rate,
    "optimizers_3": train_one_cycle,
    "optimizers_4": decay_groups,
}
WRONG = {
    "optimizers_1": [0.4, 0.42, 0.8, 0.8878, -0.6098, 2.122, 5.42, 1.122, 0.458, "−0.122", True],
    "optimizers_2": [
        0.1,
        rate_from_zero,
        rate_from_the_start,
        rate_over_the_total,
        rate_in_a_line,
        rate_below_zero,
        rate_in_degrees,
        rate_that_prints,
    ],
    "optimizers_3": [
        partial(train_one_cycle, per="epoch", first=True, short=True),
        partial(train_one_cycle, per="epoch", short=True),
        partial(train_one_cycle, per="epoch"),
        partial(train_one_cycle, first=True),
        partial(train_one_cycle, short=True),
        partial(train_one_cycle, late=True),
        partial(train_one_cycle, idle=True),
        train_without_zero_grad,
        train_and_say_nothing,
    ],
    "optimizers_4": [
        groups_by_name,
        groups_by_batchnorm,
        groups_without_the_rest,
        groups_that_overlap,
        groups_of_convolutions,
        groups_by_default,
        groups_the_wrong_way_round,
    ],
}
