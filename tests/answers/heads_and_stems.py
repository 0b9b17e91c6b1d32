"""Right and typically wrong answers to the exercises of *heads and stems*."""

import torch
from torch import nn

from tlbook import MLPHead, get_head, replace_head, replace_stem


def grow(model, n, hidden):
    width = get_head(model).layer.in_features
    head = nn.Sequential(nn.Linear(width, hidden), nn.ELU(), nn.Linear(hidden, n))
    replace_head(model, n, head=head)


def grow_by_a_fixed_name(model, n, hidden):
    model.fc = nn.Sequential(nn.Linear(512, hidden), nn.ELU(), nn.Linear(hidden, n))


def grow_with_a_relu(model, n, hidden):
    width = get_head(model).layer.in_features
    head = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, n))
    replace_head(model, n, head=head)


def grow_too_short(model, n, hidden):
    replace_head(model, n)


def grow_with_the_books_mlp(model, n, hidden):
    replace_head(model, n, head=MLPHead(get_head(model).layer.in_features, n, hidden=hidden))


def grow_with_another_width(model, n, hidden):
    width = get_head(model).layer.in_features
    head = nn.Sequential(nn.Linear(width, 256), nn.ELU(), nn.Linear(256, n))
    replace_head(model, n, head=head)


def grow_in_place_of_the_container(model, n, hidden):
    name = get_head(model).path.partition(".")[0]
    model.set_submodule(name, nn.Sequential(nn.ELU()))


def grow_and_freeze_to_zero(model, n, hidden):
    grow(model, n, hidden)
    next(model.parameters()).data.zero_()


def folding(*, divide=True, shift=1.0, tell=True, keep=1.0, add=torch.sum):
    def fold(model, mean, std):
        stem = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
        mean, std = (torch.tensor(v)[:, None, None] for v in (mean, std))
        weight = stem.weight.detach() / std if divide else stem.weight.detach()
        stem.bias = nn.Parameter(keep * stem.bias.detach() - shift * (weight * mean).sum((1, 2, 3)))
        stem.weight = nn.Parameter(add(weight, 1, keepdim=True))
        if tell:
            stem.in_channels = 1

    return fold


RIGHT = {
    "heads_and_stems_1": 8_967,
    "heads_and_stems_2": {"before": 2, "after": 8},
    "heads_and_stems_3": grow,
    "heads_and_stems_4": folding(),
}
WRONG = {
    "heads_and_stems_1": [8_960, 6_727, 1_281_000, 1_239_047, 7, "8967"],
    "heads_and_stems_2": [
        {"before": 4, "after": 8},
        {"before": 2, "after": 4},
        {"before": 2, "after": 64},
        {"before": 16, "after": 8},
        {"after": 8},
        (2, 8),
    ],
    "heads_and_stems_3": [
        grow_by_a_fixed_name,
        grow_with_a_relu,
        grow_too_short,
        grow_with_the_books_mlp,
        grow_with_another_width,
        grow_in_place_of_the_container,
        grow_and_freeze_to_zero,
        nn.ELU(),
    ],
    "heads_and_stems_4": [
        lambda model, mean, std: replace_stem(model, in_channels=1),
        lambda model, mean, std: None,
        folding(shift=0),
        folding(divide=False),
        folding(shift=-1),
        folding(tell=False),
        folding(keep=0),
        folding(add=torch.mean),
        "fold",
    ],
}
