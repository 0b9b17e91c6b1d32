"""Checks of the exercises in *Losses*.

Functions that a reader writes are run on inputs on which every typical mistake gives another number
than the right way.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from tlbook.check.grading import NotYet, exercise, expect_function, expect_table

BY_HAND = {"loss": 1.204, "gradient": [0.6, -0.7, 0.1]}
LOSS_HINTS = {
    0.511: "that is the loss if the first class were right; the middle one is.",
    2.303: "that is the loss if the last class were right; the middle one is.",
    0.523: "that takes the logarithm to base 10; a loss takes the natural one.",
    -1.204: "a probability below 1 has a negative logarithm; the loss changes its sign.",
    0.3: "that is the probability of the right class; the loss is minus its logarithm.",
    -1.0986: "that is minus the logit; take the softmax first.",
}
GRADIENT_HINTS = {
    (0.6, 0.3, 0.1): "that is the softmax; one-hot is still to be subtracted.",
    (-0.6, 0.7, -0.1): "the sign is turned round: that is where the step goes, not the gradient.",
    (-0.4, 0.3, 0.1): "that is the gradient if the first class were right; the middle one is.",
    (0.2, -0.2333, 0.0333): "there is one example: nothing is divided by the number of classes.",
}
NAMES = "CrossEntropyLoss BCEWithLogitsLoss L1Loss MSELoss NLLLoss MultiMarginLoss"
TASKS = dict(zip("abcdef", NAMES.split(), strict=True))
ONE_CLASS = "it knows one right class; here several labels may be true at once."
TASK_HINTS = {
    "a": {
        "NLLLoss": "it takes log-probabilities; a Linear returns logits.",
        "MultiMarginLoss": "its scores do not become probabilities.",
        "BCEWithLogitsLoss": "it asks 37 separate questions; here exactly one breed is right.",
    },
    "b": {
        "CrossEntropyLoss": "its probabilities add up to 1: a beach would exclude a dog.",
        "NLLLoss": ONE_CLASS,
        "MultiMarginLoss": ONE_CLASS,
    },
    "c": {"MSELoss": "a label off by a kilometre would weigh a million times one off by a metre."},
    "d": {"L1Loss": "it finds the median; bills that sum up right need the mean."},
    "e": {
        "CrossEntropyLoss": "it would be right too, but takes the logarithm twice; which loss "
        "is made for log-probabilities?"
    },
    "f": {
        "CrossEntropyLoss": "its gradient is never 0: it goes on pushing.",
        "NLLLoss": "its gradient is the same everywhere: it goes on pushing.",
    },
}
NUMBERS = ("MSELoss", "L1Loss")
NOT_LISTED = {"BCELoss": "takes probabilities", "HuberLoss": "is robust"}


@exercise(
    "Cross entropy of the logits ln 6, ln 3, 0 with the middle class right: "
    'answer = {"loss": ..., "gradient": [..., ..., ...]}.'
)
def losses_1(answer: Any) -> None:
    """A cross entropy and its gradient with paper and pencil."""
    if not isinstance(answer, dict) or answer.keys() != BY_HAND.keys():
        expect_table(answer, BY_HAND, {})
    loss = _numbers(answer["loss"], "loss", 1)
    if not math.isclose(loss[0], BY_HAND["loss"], abs_tol=0.006):
        _hint("loss", loss, {(key,): hint for key, hint in LOSS_HINTS.items()})
    gradient = _numbers(answer["gradient"], "gradient", 3)
    if not _close(gradient, BY_HAND["gradient"]):
        _hint("gradient", gradient, GRADIENT_HINTS)


@exercise('Which loss for which task? answer = {"a": "L1Loss", ...} for a to f.')
def losses_2(answer: Any) -> None:
    """Six tasks and their losses."""
    if isinstance(answer, dict):
        answer = {_letter(key): _class_name(value) for key, value in answer.items()}
        for key, name in answer.items():
            if key in TASKS and isinstance(name, str):
                _expect_kind(key, name)
    expect_table(answer, TASKS, TASK_HINTS)


@exercise("Write huber(outputs, targets, delta), the mean of Huber's loss: answer = huber.")
def losses_3(answer: Any) -> None:
    """Huber's loss for several thresholds, and for outputs with one column."""
    expect_function(answer, "outputs, targets and delta")
    errors = torch.tensor([0.1, -0.4, 1.5, -2.5, 6.0])
    targets = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0])
    for delta in (1.0, 0.5, 2.0):
        outputs = (targets + errors).requires_grad_()
        right = F.huber_loss(outputs, targets, delta=delta)
        try:
            found = _scalar(answer(outputs, targets, delta))
        except RuntimeError as error:
            if "ambiguous" not in str(error):
                raise
            raise NotYet("an `if` asks about one example; torch.where asks about all.") from None
        _expect_huber(found, right, errors, delta)
        if not found.requires_grad:
            raise NotYet("no gradient reaches the outputs: compute with tensors only.")
        column = _scalar(answer(outputs.unsqueeze(1), targets, delta))
        if not torch.allclose(column, right, atol=1e-5):
            raise NotYet(
                f"right for outputs (N,); for outputs (N, 1) it gives {column.item():.4f} instead "
                f"of {right.item():.4f}. What shape has outputs - targets?"
            )


@exercise(
    "Write weighted_loss(batches, weight), the same number for any batch size: "
    "answer = weighted_loss."
)
def losses_4(answer: Any) -> None:
    """A weighted cross entropy over batches of unequal composition."""
    expect_function(answer, "batches and weight")
    logits = torch.randn(23, 3, generator=torch.Generator().manual_seed(3))
    labels = (torch.arange(23) > 11).long() + (torch.arange(23) > 19).long()
    weight = torch.tensor([0.5, 1.0, 4.0])
    right = F.cross_entropy(logits, labels, weight=weight).item()
    each = weight[labels] * F.cross_entropy(logits, labels, reduction="none")
    for size in (23, 10, 4, 1):
        batches = list(zip(logits.split(size), labels.split(size), strict=True))
        means = [F.cross_entropy(*batch, weight=weight).item() for batch in batches]
        counts = [len(batch[1]) for batch in batches]
        found = _scalar(answer(batches, weight.clone())).item()
        if math.isclose(found, right, abs_tol=1e-4):
            continue
        wrong = {
            each.sum().item(): "that is the sum; what does the mean divide by?",
            each.mean().item(): "that divides by the number of examples; PyTorch's weighted mean "
            "divides by something else.",
            (each.sum() / weight.sum()).item(): "that divides by the weights of the classes; each "
            "example brings the weight of its own class.",
            means[-1]: "that is the last batch alone.",
            F.cross_entropy(logits, labels).item(): "the weights have no effect on this number.",
            math.fsum(means) / len(means): "that is the mean of the batch means.",
            math.fsum(m * n for m, n in zip(means, counts, strict=True)) / 23: "that multiplies "
            "each batch's mean by its number of examples; it was divided by something else.",
        }
        hints = [hint for value, hint in wrong.items() if math.isclose(found, value, abs_tol=1e-4)]
        hint = hints[0] if hints else f"expected {right:.4f}."
        raise NotYet(f"batches of {size}: found {found:.4f}; {hint}")


@exercise(
    "Write pixel_loss(network, images, masks), which leaves out the labels 0 and 255: "
    "answer = pixel_loss."
)
def losses_5(answer: Any) -> None:
    """A loss per pixel on LR-ASPP, with masks that are partly or wholly without labels."""
    expect_function(answer, "a network, images and masks")
    generator = torch.Generator().manual_seed(5)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(5)
        network = lraspp_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=4
        ).eval()
        # Fresh logits are nearly zero, and then every choice of pixels would cost ln 4.
        nn.init.normal_(network.classifier.low_classifier.bias, std=2)
    images = torch.rand(2, 3, 64, 64, generator=generator)
    masks = torch.randint(0, 4, (2, 64, 64), generator=generator)
    masks[0, :40], masks[1, :, :5], masks[0, 40:] = 255, 255, masks[0, 40:].clamp(max=1)
    with torch.no_grad():
        logits = network(images)["out"]
    _expect_pixels(answer, network, images, masks, logits)
    for unlabelled in (torch.full_like(masks, 255), torch.zeros_like(masks)):
        nothing = _scalar(answer(network, images, unlabelled)).item()
        if math.isnan(nothing):
            raise NotYet("nan where no pixel counts: 0 has been divided by 0.")
        if nothing != 0:
            raise NotYet(f"where no pixel counts expected 0, found {nothing:.4f}.")


def _expect_pixels(
    answer: Callable, network: nn.Module, images: Tensor, masks: Tensor, logits: Tensor
) -> None:
    given = masks.clone()
    try:
        found = _scalar(answer(network, images, given))
    except (TypeError, AttributeError) as error:
        if "OrderedDict" not in str(error):
            raise
        raise NotYet('the network returns a dictionary: its logits are ["out"].') from None
    except IndexError as error:
        if "255" not in str(error):
            raise
        raise NotYet("255 is no class: leave its pixels out before the loss is taken.") from None
    if not torch.equal(given, masks):
        raise NotYet("your function changes masks: masked_fill and torch.where make a copy.")
    each = F.cross_entropy(logits, masks, ignore_index=255, reduction="none")
    counted = (masks != 0) & (masks != 255)
    if not math.isclose(found.item(), each[counted].mean(), abs_tol=1e-4):
        per_image = [row[mask].mean() for row, mask in zip(each, counted, strict=True)]
        wrong = {
            each[counted].sum(): "that is the sum; divide it by the pixels that count.",
            each[counted].sum() / masks.numel(): "that divides by all pixels.",
            each[counted].sum() / (masks != 255).sum(): "background is in what you divide by.",
            each[masks != 255].mean(): "the background still counts.",
            each[counted].sum() / (masks != 0).sum(): "unknown pixels are in what you divide by.",
            F.cross_entropy(logits.reshape(-1, 4)[counted.flatten()], masks[counted]): "a row of "
            "your reshaped logits is not one pixel; permute the classes to the end first.",
            sum(per_image) / 2: "that is the mean of two images' means; their counts differ.",
        }
        for value, hint in wrong.items():
            if math.isclose(found.item(), value, rel_tol=1e-4, abs_tol=1e-4):
                raise NotYet(hint)
        raise NotYet(f"expected {each[counted].mean():.4f}, found {found.item():.4f}.")
    if not found.requires_grad:
        raise NotYet("the loss has no gradient: return a tensor that backward can start from.")


def _expect_huber(found: Tensor, right: Tensor, signed: Tensor, delta: float) -> None:
    if torch.allclose(found, right, atol=1e-5):
        return
    error = signed.abs()
    near, far = error**2 / 2, delta * (error - delta / 2)
    wrong = {
        "that is the sum; expected the mean.": right * len(error),
        "the middle piece is half the square.": torch.where(error <= delta, 2 * near, far).mean(),
        "that is half the square everywhere; far away it becomes a line.": near.mean(),
        "that is the line everywhere; near the target it is a square.": far.mean(),
        "the two pieces are exchanged.": torch.where(error <= delta, far, near).mean(),
        "that divides by delta, as SmoothL1Loss does.": right / delta,
        "in the line it is e - delta / 2.": torch.where(
            error <= delta, near, far - delta**2 / 2
        ).mean(),
        "that averages each piece by itself; divide by all examples.": near[error <= delta].mean()
        + far[error > delta].mean(),
        "the condition takes the error with its sign; it wants the absolute one.": torch.where(
            signed <= delta, near, far
        ).mean(),
    }
    for hint, value in wrong.items():
        if torch.allclose(found, value.to(found.dtype), atol=1e-5):
            raise NotYet(f"delta {delta}: {hint}")
    raise NotYet(f"delta {delta}: expected {right.item():.4f}, found {found.item():.4f}.")


def _numbers(value: Any, name: str, count: int) -> list[float]:
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise NotYet(f"{name}: expected numbers, found {type(value).__name__}.") from None
    if tensor.dtype == torch.bool or tensor.numel() != count:
        raise NotYet(f"{name}: {value} is not {count} number{'s' * (count > 1)}.")
    return tensor.flatten().tolist()


def _hint(name: str, found: list[float], hints: dict[tuple, str]) -> None:
    for wrong, hint in hints.items():
        if _close(found, wrong):
            raise NotYet(f"{name}: {hint}")
    shown = ", ".join(f"{value:g}" for value in found)
    raise NotYet(f"{name}: {shown} is not right. What does the softmax of the logits give?")


def _close(found: list[float], right: Any) -> bool:
    return len(found) == len(right) and all(
        math.isclose(a, b, abs_tol=0.006) for a, b in zip(found, right, strict=True)
    )


def _expect_kind(key: str, name: str) -> None:
    if name in NOT_LISTED:
        raise NotYet(f"{key}: {name} {NOT_LISTED[name]}, but is not one of the six.")
    if key in "cd" and name in TASKS.values() and name not in NUMBERS:
        raise NotYet(f"{key}: {name} asks for a class; here the target is a number.")
    if key not in "cd" and name in NUMBERS:
        raise NotYet(f"{key}: {name} compares numbers; here the target is a class or a label.")


def _letter(key: Any) -> Any:
    return key.strip().lower() if isinstance(key, str) else key


def _class_name(value: Any) -> Any:
    """Return the name in `TASKS` that is meant by a class, an instance or another spelling."""
    value = type(value) if isinstance(value, nn.Module) else value
    name = getattr(value, "__name__", value)  # classes, and functions such as F.cross_entropy
    if not isinstance(name, str):
        return value
    plain = name.rpartition(".")[2].strip(" ()").lower().replace("_", "").replace(" ", "")
    plain = plain.replace("binarycrossentropy", "bce").removesuffix("loss")
    names = (*TASKS.values(), *NOT_LISTED)
    return {right.removesuffix("Loss").lower(): right for right in names}.get(plain, name)


def _scalar(value: Any) -> Tensor:
    if isinstance(value, bool) or not (torch.is_tensor(value) or isinstance(value, int | float)):
        raise NotYet(f"your function returned {type(value).__name__}, expected one number.")
    tensor = torch.as_tensor(value)
    if tensor.numel() != 1:
        raise NotYet(f"your function returned a tensor {tuple(tensor.shape)}, expected one number.")
    return tensor.reshape(())
