"""Right and typically wrong answers to the exercises of *small adapters*."""

import torch
from torch import nn
from torchvision.models import mobilenet_v3_small

from tlbook import freeze, replace


class LoRA(nn.Module):
    def __init__(self, base, rank=4, alpha=8, zeros=("up",)):
        super().__init__()
        self.base, self.rank, self.scale = freeze(base), rank, alpha / rank
        if isinstance(base, nn.Linear):
            self.down = nn.Linear(base.in_features, rank, bias=False)
            self.up = nn.Linear(rank, base.out_features, bias=False)
        else:
            g = base.groups
            form = (base.kernel_size, base.stride, base.padding, base.dilation)
            self.down = nn.Conv2d(base.in_channels, g * rank, *form, groups=g, bias=False)
            self.up = nn.Conv2d(g * rank, base.out_channels, 1, groups=g, bias=False)
        for name in zeros:
            nn.init.zeros_(self.get_submodule(name).weight)

    def forward(self, x):
        return self.base(x) + self.scale * self.up(self.down(x))


def all_layers():
    network = mobilenet_v3_small(weights=None)
    return [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def where_it_pays():
    def size(module):
        return sum(p.numel() for p in module.parameters() if p.requires_grad)

    return sum(size(LoRA(layer)) < layer.weight.numel() for layer in all_layers())


def how_many_layers():
    return len(all_layers())


def convolutions_without_groups():
    return sum(getattr(layer, "groups", 0) == 1 for layer in all_layers())


def delta(base, down, up, scale):
    groups, rank = getattr(base, "groups", 1), up.weight.shape[1]
    product = up.weight.reshape(groups, -1, rank) @ down.weight.reshape(groups, rank, -1)
    return scale * product.reshape(base.weight.shape).detach()


def unscaled(base, down, up, scale):
    return delta(base, down, up, 1.0)


def as_one_group(base, down, up, scale):
    return scale * (up.weight.flatten(1) @ down.weight.flatten(1)).reshape(base.weight.shape)


def as_matrix(base, down, up, scale):
    return delta(base, down, up, scale).flatten(1)


def added_in_place(base, down, up, scale):
    change = delta(base, down, up, scale)
    with torch.no_grad():
        base.weight += change
    return change


def built(hold=freeze, rank=2, zeros=("up",), keep=lambda layer: True):
    network = hold(mobilenet_v3_small(weights=None))
    for path, layer in list(network.named_modules()):
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and keep(layer):
            replace(network, path, LoRA(layer, rank, zeros=zeros))
    return network


def adapted():
    return built()


def switched_off():
    return built(hold=lambda network: network.requires_grad_(False))


def both_zero():
    return built(zeros=("up", "down"))


def both_random():
    return built(zeros=())


def rank_four():
    return built(rank=4)


def without_squeeze_and_excitation():
    return built(keep=lambda layer: layer.bias is None)


def not_frozen():
    return built(hold=lambda network: network)


def only_frozen():
    return freeze(mobilenet_v3_small(weights=None))


BUILDERS = [
    where_it_pays, how_many_layers, convolutions_without_groups, adapted, switched_off, both_zero,
    both_random, rank_four, without_squeeze_and_excitation, not_frozen, only_frozen,
]  # fmt: skip
for builder in BUILDERS:
    builder.builds_answer = True

RIGHT = {
    "adapters_1": 2_816,
    "adapters_2": where_it_pays,
    "adapters_3": delta,
    "adapters_4": adapted,
}

WRONG = {
    "adapters_1": [768, 2_304, 512, 73_728, 76_672, 704, "2816"],
    "adapters_2": [how_many_layers, convolutions_without_groups, 0],
    "adapters_3": [unscaled, as_one_group, as_matrix, added_in_place],
    "adapters_4": [
        switched_off,
        both_zero,
        both_random,
        rank_four,
        without_squeeze_and_excitation,
        not_frozen,
        only_frozen,
    ],
}
