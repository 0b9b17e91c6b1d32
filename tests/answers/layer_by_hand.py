"""Right and typically wrong answers to the exercises of *a layer by hand*."""

import torch
from torch import nn


def merge(first, second):
    merged = nn.Linear(first.in_features, second.out_features)
    with torch.no_grad():
        merged.weight.copy_(second.weight @ first.weight)
        merged.bias.zero_()
        if first.bias is not None:
            merged.bias += second.weight @ first.bias
        if second.bias is not None:
            merged.bias += second.bias
    return merged


def merge_backwards(first, second):
    merged = nn.Linear(first.in_features, second.out_features)
    with torch.no_grad():
        merged.weight = nn.Parameter(first.weight @ second.weight)
    return merged


def merge_without_passing_the_bias(first, second):
    merged = merge(first, second)
    with torch.no_grad():
        merged.bias.zero_()
        merged.bias += 0 if second.bias is None else second.bias
    return merged


def merge_only_with_biases(first, second):
    merged = merge(first, second)
    merged.bias.data = second.weight @ first.bias + second.bias
    return merged


def merge_into_the_second(first, second):
    second.weight.data = second.weight.data @ first.weight.data
    second.in_features = first.in_features
    return second


def merge_in_place(first, second):
    merged = merge(first, second)
    first.weight.data.zero_()
    return merged


def pictures(conv):
    filters = conv.weight.detach().cpu().permute(0, 2, 3, 1).numpy()
    low = filters.min(axis=(1, 2, 3), keepdims=True)
    high = filters.max(axis=(1, 2, 3), keepdims=True)
    return (filters - low) / (high - low)


def pictures_in_place(conv):
    filters = conv.weight.detach().permute(0, 2, 3, 1).numpy()
    filters -= filters.min(axis=(1, 2, 3), keepdims=True)
    filters /= filters.max(axis=(1, 2, 3), keepdims=True)
    return filters


def pictures_of_one_range(conv):
    filters = conv.weight.detach().permute(0, 2, 3, 1).numpy()
    return (filters - filters.min()) / (filters.max() - filters.min())


def pictures_of_one_range_per_channel(conv):
    filters = conv.weight.detach().permute(0, 2, 3, 1).numpy()
    low = filters.min(axis=(1, 2), keepdims=True)
    return (filters - low) / (filters.max(axis=(1, 2), keepdims=True) - low)


def pictures_on_their_side(conv):
    return pictures(conv).transpose(0, 2, 1, 3)


def pictures_with_channels_first(conv):
    return pictures(conv).transpose(0, 3, 1, 2)


def pictures_by_reshape(conv):
    filters = pictures_with_channels_first(conv)
    return filters.reshape(pictures(conv).shape)[:, ::-1]


class Gated(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.value = nn.Linear(inputs, outputs)
        self.gate = nn.Linear(inputs, outputs)

    def forward(self, x):
        return self.value(x) * self.gate(x).sigmoid()


class GatedListed(Gated):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.layers = [self.value, self.gate]
        del self.value, self.gate


class GatedMisnamed(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.value = nn.Linear(inputs, outputs)
        self.gate = nn.Linear(inputs, outputs)

    def __forward__(self, x):
        return self.value(x) * self.gate(x).sigmoid()


class GatedWithoutReturn(Gated):
    def forward(self, x):
        self.value(x) * self.gate(x).sigmoid()


class GatedWithoutSigmoid(Gated):
    def forward(self, x):
        return self.value(x) * self.gate(x)


class GatedTheOtherWay(Gated):
    def forward(self, x):
        return self.value(x).sigmoid() * self.gate(x)


RIGHT = {
    "layer_by_hand_1": (16, 3, 32, 64),
    "layer_by_hand_2": merge,
    "layer_by_hand_3": pictures,
    "layer_by_hand_4": Gated,
}
WRONG = {
    "layer_by_hand_1": [(16, 64), (16, 64, 32, 32), (16, 3, 64, 32), (16, 32, 32, 64), "error"],
    "layer_by_hand_2": [
        merge_backwards,
        merge_without_passing_the_bias,
        merge_only_with_biases,
        merge_in_place,
        merge_into_the_second,
        nn.Sequential,
    ],
    "layer_by_hand_3": [
        pictures_in_place,
        pictures_of_one_range,
        pictures_of_one_range_per_channel,
        pictures_on_their_side,
        pictures_with_channels_first,
        pictures_by_reshape,
        lambda conv: conv.weight,
    ],
    "layer_by_hand_4": [
        GatedListed,
        GatedMisnamed,
        GatedWithoutReturn,
        GatedWithoutSigmoid,
        GatedTheOtherWay,
        Gated(8, 4),
    ],
}
