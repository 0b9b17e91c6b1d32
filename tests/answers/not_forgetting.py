"""Right and typically wrong answers to the exercises of *not forgetting*."""

import torch
from torchvision.models import mobilenet_v3_small


def entries_with_a_start():
    names = [name for name, _ in mobilenet_v3_small(weights=None).named_parameters()]
    return sum(not name.startswith("classifier.3.") for name in names)


def all_parameters():
    return len(list(mobilenet_v3_small(weights=None).parameters()))


def all_entries():
    return len(mobilenet_v3_small(weights=None).state_dict())


BUILDERS = [entries_with_a_start, all_parameters, all_entries]
for builder in BUILDERS:
    builder.builds_answer = True


def has_start(name, parameter, start):
    return parameter.requires_grad and name in start and start[name].shape == parameter.shape


def l2_sp(model, start, strength):
    far = torch.zeros(())
    for name, parameter in model.named_parameters():
        if has_start(name, parameter, start):
            far = far + (parameter - start[name]).square().sum()
    return strength / 2 * far


def without_half(model, start, strength):
    return 2 * l2_sp(model, start, strength)


def to_zero(model, start, strength):
    return strength / 2 * sum(p.square().sum() for p in model.parameters())


def without_square(model, start, strength):
    return strength / 2 * (2 / strength * l2_sp(model, start, strength) + 1e-12).sqrt()


def over_the_state_dict(model, start, strength):
    state = model.state_dict()
    return strength / 2 * sum((state[key] - start[key]).square().sum() for key in state)


def without_looking_at_shapes(model, start, strength):
    named = {n: p for n, p in model.named_parameters() if n in start and p.requires_grad}
    return strength / 2 * sum((p - start[n]).square().sum() for n, p in named.items())


def frozen_too(model, start, strength):
    named = {n: p for n, p in model.named_parameters() if n in start}
    same = {n: p for n, p in named.items() if p.shape == start[n].shape}
    return strength / 2 * sum((p - start[n]).square().sum() for n, p in same.items())


def without_gradient(model, start, strength):
    return l2_sp(model, start, strength).item()


def average(first, second, share):
    return {
        key: torch.lerp(first[key], value, share) if value.is_floating_point() else value.clone()
        for key, value in second.items()
    }


def the_other_way(first, second, share):
    return average(second, first, share)


def counters_too(first, second, share):
    return {key: (1 - share) * first[key] + share * second[key] for key in second}


def in_place(first, second, share):
    for key, value in second.items():
        if value.is_floating_point():
            first[key].lerp_(value, share)
    return first


def parameters_alone(first, second, share):
    whole = average(first, second, share)
    return {key: value for key, value in whole.items() if "running" not in key}


def shared_counters(first, second, share):
    return average(first, second, share) | {
        key: value for key, value in second.items() if not value.is_floating_point()
    }


RIGHT = {
    "not_forgetting_1": entries_with_a_start,
    "not_forgetting_2": 0.35,
    "not_forgetting_3": l2_sp,
    "not_forgetting_4": average,
}

WRONG = {
    "not_forgetting_1": [all_parameters, all_entries, 1_000],
    "not_forgetting_2": [0.6, 0.65, 0.0, 0.9, "0.35"],
    "not_forgetting_3": [
        without_half,
        to_zero,
        without_square,
        over_the_state_dict,
        without_looking_at_shapes,
        frozen_too,
        without_gradient,
        lambda model, start, strength: 0.0,
    ],
    "not_forgetting_4": [
        the_other_way,
        counters_too,
        in_place,
        parameters_alone,
        shared_counters,
    ],
}
