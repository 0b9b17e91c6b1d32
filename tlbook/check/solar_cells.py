"""Checks of the exercises in *solar cells*: prices, thresholds, relatives and views.

Functions are tried on small arrays and on small networks with random weights.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tlbook.check.grading import NotYet, exercise, expect_function


@exercise(
    "A missed defect costs nine second looks, and risks are true. From which risk on is a second "
    "look the cheaper choice? answer = a number."
)
def solar_cells_1(answer: Any) -> None:
    """The threshold that a price sets."""
    value = _number(answer)
    hints = {
        0.5: "that is the line for equal prices.",
        0.9: "that is the line if a false alarm cost nine misses.",
        1 / 9: "close: to look again costs only where the cell is sound, 1 - risk of the time.",
        9: "a risk lies between 0 and 1.",
        10: "as a share, between 0 and 1: not in per cent.",
    }
    for wrong, hint in hints.items():
        if abs(value - wrong) < 1e-3:
            raise NotYet(hint)
    if not abs(value - 0.1) <= 1e-3:  # nan is not near anything
        raise NotYet(f"{value:g} is not the risk at which both choices cost the same.")


@exercise(
    "Write a function of (risk, truth, price) that returns a threshold with the least cost: price "
    "for a miss, 1 for a false alarm. answer = the function."
)
def solar_cells_2(answer: Any) -> None:
    """The cheapest threshold of all."""
    expect_function(answer, "risks, labels and a price")
    for name, (risk, truth, price) in _prices().items():
        least = min(_cost(risk, truth, t, price) for t in [*risk, np.inf])
        found = _number(answer(risk.copy(), truth.copy(), price))
        paid = _cost(risk, truth, found, price)
        if paid > least + 1e-9:
            raise NotYet(
                f"{name}: a threshold of {found:g} costs {paid:g}, the least is {least:g}."
            )


@exercise(
    "Write a function of (groups, train, test) that returns the share of test items whose group "
    "is also in training. answer = the function."
)
def solar_cells_3(answer: Any) -> None:
    """Relatives on both sides of a split."""
    expect_function(answer, "groups, training and test items")
    groups = np.array([7, 7, 2, 2, 2, 9, 4, 4])
    train, test = np.array([1, 3, 6]), np.array([5, 0, 2, 4])
    for name, (labels, right) in {
        "numbers as groups": (groups, 0.75),
        "names as groups": (np.array(list("aabbbcdd")), 0.75),
        "no relatives": (np.arange(8), 0.0),
    }.items():
        found = _number(answer(labels.copy(), train.copy(), test.copy()))
        if abs(found - right) < 1e-6:
            continue
        hints = {
            2 / 3: "that is the share of groups, or of training items; count test items.",
            3.0: "that is the number of items; divide by how many are tested.",
            0.25: "that is the share without relatives.",
            1.0: "some of the test items have none; groups holds a label for every item.",
        }
        near = [hint for wrong, hint in hints.items() if abs(found - wrong) < 1e-6]
        raise NotYet(f"{name}: {near[0] if near else f'{found:g}, expected {right:g}.'}")


@exercise(
    "Write a function of (model, images) that returns the mean probability of each class over the "
    "four mirrored views, in evaluation mode. answer = the function."
)
def solar_cells_4(answer: Any) -> None:
    """Test-time augmentation over mirror images."""
    expect_function(answer, "a model and images")
    model, images = _net(), torch.rand(5, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    views = [images.flip(flip) for flip in ((), (-1,), (-2,), (-1, -2))]
    with torch.no_grad():
        model.eval()
        logits = torch.stack([model(view) for view in views])
        model.train()
    right = logits.softmax(-1).mean(0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = answer(model, images.clone())
    if not torch.is_tensor(found) or found.shape != right.shape:
        shape = tuple(found.shape) if torch.is_tensor(found) else type(found).__name__
        raise NotYet(f"the function returned {shape}; expected a tensor {tuple(right.shape)}.")
    if any(not torch.equal(value, before[key]) for key, value in model.state_dict().items()):
        raise NotYet("the running statistics have moved; compute in evaluation mode.")
    if not torch.allclose(found, right, atol=1e-5):
        raise NotYet(_what_it_is(found.detach(), logits))
    if found.requires_grad:
        raise NotYet("the result carries a graph; compute it without gradients.")
    if not all(module.training for module in model.modules()):
        raise NotYet("the model came in training mode and is left in evaluation mode.")


def _what_it_is(found: Tensor, logits: Tensor) -> str:
    """Name a known mistake."""
    mistakes: list[tuple[Callable[[], Tensor], str]] = [
        (lambda: logits.mean(0), "these are mean logits; take the softmax of each view first."),
        (lambda: logits.mean(0).softmax(-1), "that is the softmax of the mean; average after it."),
        (lambda: logits[0].softmax(-1), "that is the upright view alone."),
        (lambda: logits[:2].softmax(-1).mean(0), "up-down is missing, and both flips together."),
        (lambda: logits[:3].softmax(-1).mean(0), "the view with both flips is missing."),
        (lambda: logits.softmax(-1).sum(0), "that is the sum; divide by four."),
    ]
    for wrong, hint in mistakes:
        if torch.allclose(found, wrong(), atol=1e-5):
            return hint
    return "the shape is right, but these are not the mean probabilities of the four views."


def _number(answer: Any) -> float:
    if getattr(answer, "ndim", None) == 0 and hasattr(answer, "item"):
        answer = answer.item()
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        raise NotYet(f"expected a number, found {type(answer).__name__}.")
    return float(answer)


def _cost(risk: np.ndarray, truth: np.ndarray, threshold: float, price: float) -> float:
    called = risk >= threshold
    return float(price * np.sum(~called & (truth == 1)) + np.sum(called & (truth == 0)))


def _prices() -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 40)
    risk = np.clip(0.35 * truth + random.uniform(0, 0.65, 40), 0, 1).round(2)
    low = np.array([0.001, 0.002, 0.003])
    return {
        "equal prices": (risk, truth, 1),
        "a miss is dear": (risk, truth, 30),
        "a miss is cheap": (risk, truth, 0.1),
        "all risks are low": (low, np.array([0, 1, 1]), 5),
        "nothing is defective": (np.array([0.2, 1.0]), np.array([0, 0]), 5),
    }


def _net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(294, 3)).train()
