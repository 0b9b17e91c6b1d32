"""Right and typically wrong answers to the exercises of *learning rates by layer*."""

import torch
from torch import optim
from torch.optim.lr_scheduler import OneCycleLR


def rates_by_name(model, optimizer):
    held = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: held.get(id(p)) for name, p in model.named_parameters()}


def rates_of_those_held(model, optimizer):
    return {name: rate for name, rate in rates_by_name(model, optimizer).items() if rate}


def rates_by_shape(model, optimizer):
    held = {p.shape: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: held.get(p.shape) for name, p in model.named_parameters()}


def rate_of_first_group(model, optimizer):
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    rate = optimizer.param_groups[0]["lr"]
    return {name: rate if id(p) in held else None for name, p in model.named_parameters()}


def default_rates(model, optimizer):
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    rate = optimizer.defaults["lr"]
    return {name: rate if id(p) in held else None for name, p in model.named_parameters()}


def rates_by_module(model, optimizer):
    rates = rates_by_name(model, optimizer)
    return {name.rpartition(".")[0]: rate for name, rate in rates.items()}


def own_peaks(optimizer, steps):
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, max_lr=peaks, total_steps=steps)


def open_part(model, optimizer, name, rate):
    part = model.get_submodule(name).requires_grad_(True)
    optimizer.add_param_group({"params": list(part.parameters()), "lr": rate})


def open_without_optimizer(model, optimizer, name, rate):
    model.get_submodule(name).requires_grad_(True)


def open_at_the_old_rate(model, optimizer, name, rate):
    part = model.get_submodule(name).requires_grad_(True)
    optimizer.add_param_group({"params": list(part.parameters())})


def open_nothing(model, optimizer, name, rate):
    part = model.get_submodule(name)
    optimizer.add_param_group({"params": list(part.parameters()), "lr": rate})


def new_optimizer(model, optimizer, name, rate):
    open_part(model, optimizer, name, rate)
    optimizer.__dict__ = optim.SGD(optimizer.param_groups, momentum=0.9).__dict__


def one_rate_for_all(model, optimizer, name, rate):
    open_part(model, optimizer, name, rate)
    for group in optimizer.param_groups:
        group["lr"] = rate


RIGHT = {
    "learning_rates_1": 0.01 * 0.8**6,
    "learning_rates_2": rates_by_name,
    "learning_rates_3": own_peaks,
    "learning_rates_4": open_part,
}

WRONG = {
    "learning_rates_1": [0.01, 0.01 * 0.8**3, 0.01 * 0.8**4, 0.01 * 0.8**5, 0.8**6, torch.ones(2)],
    "learning_rates_2": [
        rates_of_those_held,
        rates_by_shape,
        rate_of_first_group,
        default_rates,
        rates_by_module,
        lambda model, optimizer: list(rates_by_name(model, optimizer).values()),
        lambda model, optimizer: dict.fromkeys(rates_by_name(model, optimizer)),
    ],
    "learning_rates_3": [
        lambda optimizer, steps: OneCycleLR(optimizer, max_lr=0.5, total_steps=steps),
        lambda optimizer, steps: OneCycleLR(
            optimizer, max_lr=[g["lr"] for g in optimizer.param_groups], total_steps=steps + 1
        ),
        lambda optimizer, steps: optimizer,
        lambda optimizer, steps: OneCycleLR(
            optimizer, max_lr=[g["lr"] * 10 for g in optimizer.param_groups], total_steps=steps
        ),
    ],
    "learning_rates_4": [
        open_without_optimizer,
        open_at_the_old_rate,
        open_nothing,
        new_optimizer,
        one_rate_for_all,
        lambda model, optimizer, name, rate: None,
    ],
}
