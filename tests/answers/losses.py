"""Right and typically wrong answers to the exercises of *Losses*."""

import math

import torch
from torch import nn
from torch.nn import functional as F

BY_HAND = {"loss": 1.204, "gradient": [0.6, -0.7, 0.1]}
TASKS = {
    "a": "CrossEntropyLoss",
    "b": nn.BCEWithLogitsLoss,
    "c": nn.L1Loss(),
    "d": "nn.MSELoss()",
    "e": "nllloss",
    "f": "MultiMargin",
}


def huber(outputs, targets, delta):
    error = (outputs.reshape(targets.shape) - targets).abs()
    return torch.where(error <= delta, error**2 / 2, delta * (error - delta / 2)).mean()


def huber_broadcast(outputs, targets, delta):
    error = (outputs - targets).abs()
    return torch.where(error <= delta, error**2 / 2, delta * (error - delta / 2)).mean()


def huber_sum(outputs, targets, delta):
    return huber(outputs, targets, delta) * len(targets)


def huber_whole_square(outputs, targets, delta):
    error = (outputs.reshape(targets.shape) - targets).abs()
    return torch.where(error <= delta, error**2, delta * (error - delta / 2)).mean()


def huber_smooth_l1(outputs, targets, delta):
    return F.smooth_l1_loss(outputs.reshape(targets.shape), targets, beta=delta)


def huber_without_abs(outputs, targets, delta):
    error = outputs.reshape(targets.shape) - targets
    return torch.where(error <= delta, error**2 / 2, delta * (error - delta / 2)).mean()


def huber_with_if(outputs, targets, delta):
    error = abs(outputs.reshape(targets.shape) - targets)
    return error**2 / 2 if error <= delta else delta * (error - delta / 2)


def huber_pieces(outputs, targets, delta):
    error = (outputs.reshape(targets.shape) - targets).abs()
    near = error <= delta
    return (error[near] ** 2 / 2).mean() + (delta * (error[~near] - delta / 2)).mean()


def huber_of_one(outputs, targets, delta):
    return huber(outputs, targets, 1.0)


def huber_each(outputs, targets, delta):
    return F.huber_loss(outputs.reshape(targets.shape), targets, delta=delta, reduction="none")


def huber_as_number(outputs, targets, delta):
    return huber(outputs, targets, delta).item()


def weighted_loss(batches, weight):
    total, weights = 0.0, 0.0
    for logits, labels in batches:
        total += F.cross_entropy(logits, labels, weight=weight, reduction="sum").item()
        weights += weight[labels].sum().item()
    return total / weights


def mean_of_means(batches, weight):
    means = [F.cross_entropy(*batch, weight=weight).item() for batch in batches]
    return sum(means) / len(means)


def means_times_examples(batches, weight):
    total = sum(F.cross_entropy(*batch, weight=weight).item() * len(batch[1]) for batch in batches)
    return total / sum(len(labels) for _, labels in batches)


def divided_by_examples(batches, weight):
    total = sum(F.cross_entropy(*b, weight=weight, reduction="sum").item() for b in batches)
    return total / sum(len(labels) for _, labels in batches)


def without_weights(batches, weight):
    return divided_by_examples(batches, torch.ones_like(weight))


def divided_by_class_weights(batches, weight):
    return only_the_sum(batches, weight) / weight.sum()


def only_the_sum(batches, weight):
    return sum(F.cross_entropy(*b, weight=weight, reduction="sum") for b in batches)


def pixel_loss(network, images, masks):
    counts = (masks != 255) & (masks != 0)
    targets = masks.masked_fill(~counts, -100)
    total = F.cross_entropy(network(images)["out"], targets, reduction="sum")
    return total / counts.sum().clamp(min=1)


def pixels_with_nan(network, images, masks):
    targets = masks.masked_fill((masks == 255) | (masks == 0), -100)
    return F.cross_entropy(network(images)["out"], targets)


def pixels_with_background(network, images, masks):
    return F.cross_entropy(network(images)["out"], masks, ignore_index=255)


def pixels_by_weight(network, images, masks):
    weight = torch.tensor([0.0, 1.0, 1.0, 1.0])
    return F.cross_entropy(network(images)["out"], masks, weight=weight, ignore_index=255)


def pixels_in_place(network, images, masks):
    masks[masks == 0] = 255
    return F.cross_entropy(network(images)["out"], masks, ignore_index=255)


def pixels_over_all(network, images, masks):
    targets = masks.masked_fill((masks == 255) | (masks == 0), -100)
    return F.cross_entropy(network(images)["out"], targets, reduction="sum") / masks.numel()


def pixels_per_image(network, images, masks):
    pairs = zip(images.split(1), masks.split(1), strict=True)
    return sum(pixel_loss(network, *pair) for pair in pairs) / len(images)


def pixels_of_a_dictionary(network, images, masks):
    return F.cross_entropy(network(images), masks, ignore_index=255)


def pixels_reshaped(network, images, masks):
    rows, flat = network(images)["out"].reshape(-1, 4), masks.reshape(-1)
    counts = (flat != 255) & (flat != 0)
    return F.cross_entropy(rows[counts], flat[counts])


def pixels_over_unknown(network, images, masks):
    each = F.cross_entropy(network(images)["out"], masks, ignore_index=255, reduction="none")
    return each[masks != 0].mean()


def pixels_with_255(network, images, masks):
    return F.cross_entropy(network(images)["out"], masks)


def pixels_without_gradient(network, images, masks):
    return pixel_loss(network, images, masks).item()


RIGHT = {
    "losses_1": BY_HAND,
    "losses_2": TASKS,
    "losses_3": huber,
    "losses_4": weighted_loss,
    "losses_5": pixel_loss,
}
WRONG = {
    "losses_1": [
        1.204,
        {"loss": 1.204},
        BY_HAND | {"loss": -math.log10(0.3)},
        BY_HAND | {"loss": 0.3},
        BY_HAND | {"loss": "ln 3"},
        BY_HAND | {"loss": float("nan")},
        BY_HAND | {"gradient": [0.6, 0.3, 0.1]},
        BY_HAND | {"gradient": [-0.6, 0.7, -0.1]},
        BY_HAND | {"gradient": torch.tensor([0.2, -0.2333, 0.0333])},
        BY_HAND | {"gradient": 0.6},
    ],
    "losses_2": [
        TASKS | {"a": "NLLLoss"},
        TASKS | {"b": nn.CrossEntropyLoss},
        TASKS | {"b": nn.BCELoss},
        TASKS | {"d": F.cross_entropy},
        TASKS | {"f": "MSELoss"},
        TASKS | {"c": "MSE"},
        TASKS | {"c": nn.HuberLoss},
        TASKS | {"d": "L1Loss"},
        TASKS | {"e": "CrossEntropyLoss"},
        TASKS | {"f": "hinge"},
        {"a": "CrossEntropyLoss"},
        list(TASKS.values()),
    ],
    "losses_3": [
        huber_broadcast,
        huber_sum,
        huber_whole_square,
        huber_smooth_l1,
        huber_without_abs,
        huber_with_if,
        huber_pieces,
        huber_of_one,
        huber_each,
        huber_as_number,
    ],
    "losses_4": [
        mean_of_means,
        means_times_examples,
        divided_by_examples,
        without_weights,
        divided_by_class_weights,
        only_the_sum,
    ],
    "losses_5": [
        pixels_with_nan,
        pixels_with_background,
        pixels_by_weight,
        pixels_in_place,
        pixels_over_all,
        pixels_per_image,
        pixels_of_a_dictionary,
        pixels_reshaped,
        pixels_over_unknown,
        pixels_with_255,
        pixels_without_gradient,
    ],
}
