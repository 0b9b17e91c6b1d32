"""Checks of the exercises in *Slim nets and capacity*: counts, verdicts, choices, heads.

A number may come as an int, a float or a tensor of one element; a word in any case.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from tlbook.check.grading import NotYet, exercise, expect, expect_function, expect_table

COUNT = 1_195_972
COUNT_HINTS = {
    "_1194948": "each BatchNorm has two parameters a channel, a scale and a shift.",
    "_1196996": "running means and variances are buffers, not parameters.",
    "_1197002": "running means, variances and counts of batches are buffers, not parameters.",
    "_950212": "32 pixels, halved twice, are 8, and not 7.",
    "_925482": "that is the network for 28 pixels, one channel and 10 classes.",
    "_1195460": "512 are missing: biases before a BatchNorm, or its own two for each channel.",
    "_1195360": "convolutions and linear layers have biases.",
    "_1172842": "the last layer has 100 outputs, not 10.",
    "_1194372": "the images have three channels, not one.",
    "_163780": "the maps are flattened, not pooled: the hidden layer sees every place.",
}
VERDICTS = {"A": "overfits", "B": "underfits", "C": "too short", "D": "overfits"}
VERDICT_HINTS = {
    "A": {
        "underfits": "it has learnt its training images by heart, so it is not too small.",
        "too short": "its training images are all right, and the loss on others rises.",
    },
    "B": {
        "too short": "it has stood still for twenty epochs; what would more of them change?",
        "overfits": "compare the accuracies of training and validation.",
    },
    "C": {
        "underfits": "both accuracies have risen in the last ten epochs.",
        "overfits": "compare the accuracies of training and validation.",
    },
    "D": {
        "underfits": "the log's training accuracy was measured with dropout on.",
        "too short": "the log's training accuracy was measured with dropout on.",
    },
}

CHOICES: list[tuple[dict, str, str]] = [
    (
        {"big": (900, [0.90, 0.92, 0.91]), "slim": (100, [0.905, 0.90, 0.91])},
        "slim",
        "the smaller one is within one standard deviation of the best",
    ),
    (
        {"slim": (100, [0.80, 0.80, 0.81]), "big": (900, [0.90, 0.92, 0.91])},
        "big",
        "the smaller one is far below the best",
    ),
    (
        {"a": (500, [0.90, 0.91, 0.92]), "b": (100, [0.76, 0.88, 0.90])},
        "a",
        "the standard deviation is that of the best, not of the smaller one",
    ),
    (
        {"a": (500, [0.86, 0.94]), "b": (300, [0.87, 0.89]), "c": (100, [0.70, 0.94])},
        "b",
        "the best has the highest mean, not the highest single run",
    ),
    (
        {"a": (300, [0.80, 0.82, 0.84]), "b": (200, [0.803, 0.803, 0.803])},
        "b",
        "the standard deviation of runs divides by one less than their number",
    ),
]


def _plain(answer: Any) -> Any:
    """Return a number for a tensor of one element, and anything else as it is."""
    is_number = isinstance(answer, Tensor) and answer.numel() == 1
    return answer.item() if is_number else answer


@exercise("How many parameters, for 3×32×32 pixels and 100 classes? answer = a number.")
def slim_nets_1(answer: Any) -> None:
    """Parameters of the slim network for other images, by hand."""
    answer = _plain(answer)
    whole = isinstance(answer, float) and answer.is_integer()
    expect(int(answer) if whole else answer, COUNT, **COUNT_HINTS)


@exercise('Judge four runs: answer = {"A": ..., "B": ..., "C": ..., "D": ...}.')
def slim_nets_2(answer: Any) -> None:
    """Verdicts on four runs from what their logs say."""
    if isinstance(answer, dict):
        answer = {str(k).strip().upper(): _verdict(v) for k, v in answer.items()}
        unknown = [word for word in answer.values() if word not in VERDICTS.values()]
        if unknown:
            raise NotYet(f'{unknown[0]!r} is none of "underfits", "overfits" and "too short".')
    expect_table(answer, VERDICTS, VERDICT_HINTS)


def _verdict(word: Any) -> Any:
    return word.replace("_", " ").strip().lower() if isinstance(word, str) else word


@exercise("Write choose(candidates): answer = a function that returns a name.")
def slim_nets_3(answer: Any) -> None:
    """The smallest network whose mean is within one standard deviation of the best."""
    expect_function(answer, "a dictionary")
    for candidates, right, why in CHOICES:
        found = answer({name: (size, list(runs)) for name, (size, runs) in candidates.items()})
        if found != right:
            raise NotYet(f"{candidates}: expected {right!r}, found {found!r}; {why}.")


@exercise("Write pool_head(network, classes): answer = a function that changes a network in place.")
def slim_nets_4(answer: Any) -> None:
    """Global pooling and one linear layer in the place of a flattened head."""
    if isinstance(answer, nn.Module):
        raise NotYet("expected the function itself, without calling it, found a network.")
    expect_function(answer, "a network and a number of classes")
    for name, width in {"alexnet": 256, "vgg11": 512}.items():
        _grade_head(answer, name, width)


def _grade_head(pool_head: Callable, name: str, width: int) -> None:
    with torch.device("meta"):
        network = models.get_model(name, weights=None).eval()
    # The convolutions alone get values: the old head would take half a gigabyte.
    network.features.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in network.features.parameters():
            parameter.fill_(0.01)
    kept = [id(parameter) for parameter in network.features.parameters()]
    returned = pool_head(network, 7)
    if isinstance(returned, nn.Module) and returned is not network:
        raise NotYet("your function returns another network; change the one that it gets.")
    if [id(parameter) for parameter in network.features.parameters()] != kept:
        raise NotYet(f"{name}: its convolutions have changed; only the head is to be replaced.")
    found = sum(p.numel() for p in network.parameters()) - sum(
        p.numel() for p in network.features.parameters()
    )
    if found != 7 * (width + 1):
        raise NotYet(
            f"{name}: behind the convolutions are {found:,} parameters, expected "
            f"{7 * (width + 1):,}: one linear layer from {width} numbers to 7."
        )
    for side in (64, 96):
        with torch.inference_mode():
            shape = tuple(network(torch.ones(2, 3, side, side)).shape)
        if shape != (2, 7):
            raise NotYet(f"{name}: two images of {side} pixels give {shape}, expected (2, 7).")
