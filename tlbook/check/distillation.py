"""Checks of the exercises in *distillation*: the loss and its factor, the teacher, its answers."""

import copy
import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tlbook.check.grading import NotYet, exercise, expect_function

MAY = {
    "a": (True, "Dropout sits in the student; the teacher sees the same image each time."),
    "b": (False, "each crop is a new image, and the teacher's answer to it is a new one."),
    "c": (True, "there are two fixed views, and an answer is kept for each."),
    "d": (False, "a teacher that moves gives other answers in the next epoch."),
    "e": (True, "each network gets its own size of the same photograph, which is fixed."),
    "f": (False, "a mixture is a new image, and its answer is not the mixture of two answers."),
}


@exercise(
    "How many times too small is kl_div with its default reduction, for logits (64, 10)? "
    "answer = a number."
)
def distillation_1(answer: Any) -> None:
    """The wrong mean."""
    if getattr(answer, "ndim", None) == 0 and hasattr(answer, "item"):
        answer = answer.item()
    if not isinstance(answer, int | float):
        raise NotYet(f"expected a number, found {type(answer).__name__}.")
    hints = {
        640: "that compares it with the sum; the right loss is a mean over the batch.",
        64: "both divide by the 64 examples; look at what else the default divides by.",
        1: "they differ: the default divides by every value, not by every example.",
        0.1: "the question is how many times too small, so the number is above 1.",
    }
    if answer != 10:
        raise NotYet(hints.get(answer, f"{answer} is not that factor."))


@exercise(
    "Write a function of (student, teacher, labels, temperature, share) that returns the loss of "
    "distillation and sends no gradient to the teacher. answer = the function."
)
def distillation_2(answer: Any) -> None:
    """Both losses, the factor, and no way to the teacher."""
    expect_function(answer, "student, teacher, labels, temperature and share")
    for temperature, share in ((1.0, 1.0), (1.0, 0.0), (4.0, 0.7), (2.5, 1.0)):
        student, teacher, labels = _logits()
        found = answer(student, teacher, labels, temperature, share)
        if not isinstance(found, Tensor) or found.ndim:
            raise NotYet(f"the function returned {_what(found)}; expected a tensor with one value.")
        right = _loss(student, teacher, labels, temperature, share)
        where = f"temperature {temperature}, share {share}"
        if not torch.isclose(found, right, atol=1e-5):
            hint = _hint(found, student, teacher, labels, temperature, share)
            raise NotYet(f"{where}: found {found.item():.4f}, expected {right.item():.4f}.{hint}")
        if not found.requires_grad:
            raise NotYet("the loss has no graph: no student would learn from it.")
        found.backward()
        if teacher.grad is not None and teacher.grad.any():
            raise NotYet(f"{where}: a gradient reaches the teacher's logits; detach them.")


@exercise(
    "In which of the cases a to f may the teacher's logits be kept for all epochs? "
    'answer = a list of letters, such as ["a"].'
)
def distillation_3(answer: Any) -> None:
    """Which answers may be cached."""
    if isinstance(answer, str):
        answer = re.findall(r"[a-zA-Z]", answer)
    if not isinstance(answer, list | tuple | set | frozenset):
        raise NotYet(f"expected a list of letters, found {type(answer).__name__}.")
    letters = {str(letter).strip(" ().").lower() for letter in answer}
    if not letters:
        raise NotYet("some of the cases allow it.")
    if unknown := sorted(letters - MAY.keys()):
        raise NotYet(f"{unknown[0]!r} is none of the cases a to f.")
    for letter, (may, reason) in MAY.items():
        if (letter in letters) != may:
            raise NotYet(f"{letter}: {reason}")


@exercise(
    "Write a function of (teacher, images, views, temperature) that returns the teacher's "
    "probabilities, (views × N, C), and leaves it as it was. answer = the function."
)
def distillation_4(answer: Any) -> None:
    """Soft targets for every view, from a teacher that stays what it was."""
    expect_function(answer, "a teacher, images, views and a temperature")
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    views = [lambda x: x, lambda x: x.flip(3), lambda x: 2 * x]
    for build in (_with_batch_norm, _with_dropout):
        teacher = build().train()
        teacher[0].eval()
        modes = [module.training for module in teacher.modules()]
        state = copy.deepcopy(teacher.state_dict())
        found = answer(teacher, images, list(views), 3.0)
        if not isinstance(found, Tensor) or found.shape != (15, 4):
            raise NotYet(f"the function returned {_what(found)}; expected a tensor (15, 4).")
        if found.requires_grad:
            raise NotYet("the targets have a graph; compute them without gradients.")
        if any(not value.equal(state[name]) for name, value in teacher.state_dict().items()):
            raise NotYet("the teacher's weights or running statistics have moved.")
        if [module.training for module in teacher.modules()] != modes:
            raise NotYet("some module of the teacher is not in the mode that it was in before.")
        _expect_targets(found, copy.deepcopy(teacher).eval(), images, views)


def _logits() -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    student, teacher = (2 * torch.randn(6, 5, generator=random) for _ in range(2))
    return student.requires_grad_(), teacher.requires_grad_(), torch.tensor([0, 1, 2, 3, 4, 0])


def _soft(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    log_q = F.log_softmax(student / temperature, dim=1)
    log_p = F.log_softmax(teacher / temperature, dim=1)
    return F.kl_div(log_q, log_p, log_target=True, reduction="sum") / len(student)


def _entropy(logits: Tensor) -> Tensor:
    return -(logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1).mean()


def _without_logarithm(student: Tensor, teacher: Tensor) -> Tensor:
    return F.kl_div(student.softmax(dim=1), teacher.softmax(dim=1), reduction="batchmean")


def _loss(student: Tensor, teacher: Tensor, labels: Tensor, t: float, share: float) -> Tensor:
    hard = F.cross_entropy(student, labels)
    return (1 - share) * hard + share * t**2 * _soft(student, teacher, t)


def _hint(
    found: Tensor, student: Tensor, teacher: Tensor, labels: Tensor, t: float, share: float
) -> str:
    """Name the typical mistake that gives this value."""
    hard, soft = F.cross_entropy(student, labels), t**2 * _soft(student, teacher, t)
    softened = F.cross_entropy(student / t, labels)
    back = t**2 * _soft(teacher, student, t)
    known = {
        " The factor of the temperature is missing.": (hard, soft / t**2),
        " The mean is over all values, not over examples.": (hard, soft / student.shape[1]),
        " The sum is not divided by the number of examples.": (hard, soft * len(student)),
        " Student and teacher are exchanged.": (hard, back),
        " The factor is the square of the temperature.": (hard, soft / t),
        " Subtract the teacher's own entropy; it has no gradient for the student.": (
            hard,
            soft + t**2 * _entropy(teacher / t),
        ),
        " kl_div takes the student as logarithms of probabilities.": (
            hard,
            t**2 * _without_logarithm(student / t, teacher / t),
        ),
        " The labels' loss takes the logits as they are.": (softened, soft),
    }
    values = {hint: (1 - share) * ours + share * theirs for hint, (ours, theirs) in known.items()}
    values[" share belongs to the teacher."] = share * hard + (1 - share) * soft
    fitting = (hint for hint, value in values.items() if torch.isclose(found, value, atol=1e-5))
    return next(fitting, "")


def _what(found: Any) -> str:
    return f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__


def _with_batch_norm() -> nn.Sequential:
    return _net(nn.BatchNorm2d(6))


def _with_dropout() -> nn.Sequential:
    return _net(nn.Dropout(0.5))


def _net(middle: nn.Module) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
        net = nn.Sequential(nn.Conv2d(3, 6, 3), middle, nn.ReLU(), *head)
        with torch.no_grad():
            net[5].weight.mul_(6)
        return net


def _expect_targets(found: Tensor, teacher: nn.Module, images: Tensor, views: list) -> None:
    with torch.no_grad():
        logits = [teacher(view(images)) for view in views]
    right = (torch.cat(logits) / 3).softmax(1)
    if torch.allclose(found, right, atol=1e-4):
        return
    if torch.allclose(found, torch.cat(logits).softmax(1), atol=1e-4):
        raise NotYet("these are probabilities at temperature 1.")
    if torch.allclose(found, torch.stack(logits, 1).flatten(0, 1).div(3).softmax(1), atol=1e-4):
        raise NotYet("the rows go image by image; row v × N + i is view v of image i.")
    if torch.allclose(found, torch.cat(logits).softmax(1) / 3, atol=1e-4):
        raise NotYet("divide the logits by the temperature, not the probabilities.")
    if not torch.allclose(found.sum(1), torch.ones(len(found)), atol=1e-4):
        raise NotYet("the rows do not add up to 1; expected probabilities.")
    raise NotYet("these are not the teacher's probabilities in evaluation mode.")
