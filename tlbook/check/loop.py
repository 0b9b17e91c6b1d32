"""Checks of the exercises in *the training loop*: loops, what they log, and when they stop.

Functions that a reader writes are run on tiny data on which every typical mistake gives another
number than the right way.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset

from tlbook.check.grading import NotYet, exercise
from tlbook.history import Epoch, History


@exercise(
    "A mean of batch accuracies is 0.80, for 1,001 images in batches of 100, the last image wrong. "
    "What share is correct? answer = a number."
)
def loop_1(answer: Any) -> None:
    """The share that a mean of batch means hides: 880 of 1,001."""
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        raise NotYet(f"expected a number, found {type(answer).__name__}.")
    if abs(answer - 880 / 1001) <= 0.0006:
        return
    for wrong, hint in LOG_HINTS:
        if abs(answer - wrong) <= 0.0006:
            raise NotYet(hint)
    if 87 <= answer <= 89:
        raise NotYet("that looks like a percentage: the answer is a share between 0 and 1.")
    raise NotYet(
        f"{answer} is not it: eleven batch accuracies have the mean 0.80, one of them is 0."
    )


@exercise(
    "Write measure(model, loader), which returns the loss per example and the accuracy as two "
    "floats, and leaves the model as it was. answer = measure."
)
def loop_2(answer: Any) -> None:
    """A measurement with a small last batch, on a model that evaluation mode changes."""
    if not callable(answer):
        raise NotYet(f"expected a function, found {type(answer).__name__}.")
    model, data = _delicate_model(), _eight_examples()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with_gradients = []
    model.register_forward_hook(lambda *_: with_gradients.append(torch.is_grad_enabled()))
    found = answer(model, DataLoader(data, batch_size=6))
    for name, tensor in model.state_dict().items():
        if not torch.equal(tensor, before[name]):
            raise NotYet(f"measuring changed {name}: call model.eval() before the first batch.")
    if not (isinstance(found, tuple | list) and len(found) == 2):
        raise NotYet(f"expected a pair (loss, accuracy), found {type(found).__name__}.")
    if any(with_gradients) or any(torch.is_tensor(x) and x.requires_grad for x in found):
        raise NotYet("gradients were recorded: wrap the loop in torch.inference_mode().")
    for name, value, *others in zip(("loss", "accuracy"), found, *_measured(data), strict=True):
        _expect_measured(name, float(value), *others)
    if any(torch.is_tensor(value) for value in found):
        raise NotYet("the two numbers are tensors: take .item(), as floats are asked for.")
    for training, mode in ((True, "training"), (False, "evaluation")):
        answer(model.train(training), DataLoader(data, batch_size=6))
        if any(module.training != training for module in model.modules()):
            raise NotYet(f"the model came in {mode} mode: give that mode back when you are done.")


@exercise(
    "Write early_stop(history, patience), which returns the epoch that early stopping keeps. "
    "answer = early_stop."
)
def loop_3(answer: Any) -> None:
    """The epoch that early stopping keeps, on curves that tell it from other epochs."""
    if not callable(answer):
        raise NotYet(f"expected a function, found {type(answer).__name__}.")
    for losses, patience, right, hint in EARLY_STOPS:
        found = answer(_history(losses), patience)
        if isinstance(found, bool) or not isinstance(found, int):
            raise NotYet(f"expected the number of an epoch, found {type(found).__name__}.")
        if found != right:
            raise NotYet(
                f"for validation losses {losses} and patience {patience} the epoch is {right}, "
                f"not {found}: {hint}"
            )


@exercise(
    "Train small_cnn on pilot for 3 epochs in batches of 64 with a OneCycleLR that moves after "
    "every batch and peaks at 0.01. answer = the History."
)
def loop_4(answer: Any) -> None:
    """The learning rates at which the three epochs of a one-cycle run began."""
    if not isinstance(answer, History):
        raise NotYet(f"expected the History that fit returns, found {type(answer).__name__}.")
    if len(answer.epochs) != 3:
        raise NotYet(f"the run has {len(answer.epochs)} epochs; expected 3.")
    rates = [row.learning_rate for row in answer.epochs]
    if _close(rates, _one_cycle(48, [0, 16, 32])):
        return
    if rates[0] == rates[1] == rates[2]:
        raise NotYet("the learning rate never moved: pass scheduler= to fit.")
    for total in (3, 45, 48):
        if _close(rates, _one_cycle(total, [0, 1, 2])):
            raise NotYet('the schedule moved once per epoch: pass scheduler_step="batch".')
    raise NotYet(
        f"the epochs began at rates {[round(rate, 6) for rate in rates]}. 1,000 images make "
        "15 batches of 64 and one of 40, so the cycle has 3 x 16 steps; it peaks at 0.01."
    )


# Wrong shares of loop_1, and what they come from.
LOG_HINTS = [
    (0.80, "that is what the log says; in it the last image weighs as much as 100 others."),
    (0.88, "that is the mean of the ten full batches: the 1,001st image counts too."),
    (800 / 1001, "there are eleven batches, not ten: the sum of their accuracies is 11 x 0.80."),
    (880, "that many images are correct: the answer is their share of all images."),
    (8.8, "that is the sum of the batch accuracies: how many images are correct?"),
    (0.79, "one image of 1,001 cannot do that: first find the sum of the batch accuracies."),
]
# Validation losses, patience, the epoch to keep, and what a wrong number comes from.
EARLY_STOPS = [
    ([0.9, 0.7, 0.5], 2, 3, "count from 1, and go by val_loss, which fell to the end."),
    (
        [0.9, 0.6, 0.5, 0.6, 0.7],
        2,
        3,
        "the epoch of the lowest val_loss is kept, not the last.",
    ),
    ([0.9, 0.6, 0.7, 0.8, 0.1], 2, 2, "after two epochs without a lower loss there is no fifth."),
    ([0.9, 0.6, 0.7, 0.5, 0.6, 0.4], 2, 6, "a lower loss starts the counting again."),
    ([0.9, 0.6, 0.7, 0.1], 1, 2, "with patience 1 the third epoch is the last."),
    ([0.9, 0.6, 0.6, 0.6, 0.1], 2, 2, "an equal loss is not a lower one."),
    ([0.9, 0.6, 0.8, 0.7, 0.1], 2, 2, "compare with the lowest loss so far, not with the last."),
]


def _history(losses: list[float]) -> History:
    """Make a history whose accuracy falls throughout and whose training loss does too."""
    rows = enumerate(losses, start=1)
    return History([Epoch(n, 1 / n, 1 - 0.1 * n, x, 0.9 - 0.1 * n, 0.1, 1.0, 1.0) for n, x in rows])


def _delicate_model() -> nn.Module:
    """Make a model that gives other outputs, and other buffers, in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        return nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3), nn.Dropout(0.5)).train()


def _eight_examples() -> TensorDataset:
    """Return eight examples of which the model gets the last two right, the others not."""
    images = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        predicted = _delicate_model().eval()(images).argmax(dim=1)
    labels = (predicted + torch.tensor([1, 1, 0, 2, 1, 1, 0, 0])) % 3
    return TensorDataset(images, labels.clone())


def _measured(data: TensorDataset) -> tuple[tuple[float, float], ...]:
    """Return loss and accuracy measured rightly, then in the three ways that people get wrong."""
    model, parts = _delicate_model().eval(), []
    with torch.inference_mode():
        for images, labels in DataLoader(data, batch_size=6):
            outputs = model(images)
            loss = nn.functional.cross_entropy(outputs, labels, reduction="none")
            parts.append(torch.stack([loss, (outputs.argmax(dim=1) == labels).float()]))
    means = [part.mean(dim=1) for part in parts]
    return (
        tuple(torch.cat(parts, dim=1).mean(dim=1).tolist()),
        tuple(torch.stack(means).mean(dim=0).tolist()),
        tuple((sum(means) / len(data)).tolist()),
        tuple((torch.cat(parts, dim=1).sum(dim=1) / len(means)).tolist()),
    )


def _expect_measured(
    name: str, value: float, right: float, mean: float, small: float, large: float
) -> None:
    if _close(value, right):
        return
    if _close(value, mean):
        raise NotYet(f"{name} is a mean of batch means, but the last batch is smaller: sum over "
                     "the examples.")  # fmt: skip
    if _close(value, small):
        raise NotYet(f"{name} is a sum of batch means divided by the number of examples: weight "
                     "each mean by its len(labels).")  # fmt: skip
    if _close(value, large):
        raise NotYet(f"{name} is summed over examples but divided by the number of batches.")
    raise NotYet(f"{name} is {value:.4f}, expected {right:.4f} on data of 8 examples.")


def _one_cycle(total_steps: int, steps: list[int]) -> list[float]:
    """Return a one-cycle schedule's learning rate after each of these numbers of steps."""
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))])
    schedule = OneCycleLR(optimizer, max_lr=0.01, total_steps=total_steps)
    rates = []
    for _ in range(max(steps) + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) <= max(steps):
            schedule.step()
    return [rates[step] for step in steps]


def _close(value: float | list[float], right: float | list[float]) -> bool:
    as_double: Callable[..., Tensor] = partial(torch.as_tensor, dtype=torch.float64)
    return torch.allclose(as_double(value), as_double(right), rtol=1e-4, atol=1e-9)
