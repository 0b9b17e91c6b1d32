"""Checks of the exercises in *rules of thumb*: four facts, a bill, the table, a smaller ResNet."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torchvision.models import resnet34, resnet50

from tlbook.check.grading import NotYet, exercise, expect_function, expect_table
from tlbook.results import load_result

SIGNS = {"side": "small", "kind": "photo", "number": "some", "time": "hours"}
SIGN_HINTS = {
    "side": {"large": "the thumbnails have 32 pixels; the whole scenes are not your images."},
    "kind": {
        "clean": "cut out of street scenes: background, light and angle change every time.",
        "special": "things of the street, seen by a camera: photographs as ImageNet has them.",
    },
    "number": {
        "many": "that is the mean over all classes; look at the smallest one.",
        "few": "the smallest class has 210 images.",
    },
    "time": {"minutes": "a night is more than a few minutes."},
}
IMAGES, EPOCHS = 60_000, 20
FORWARD = "that is the forward pass; training goes backward, too."
QUESTIONS = ("side", "kind", "number", "time")
ROWS = [
    ("small", "clean", "few some", "minutes hours", "pixels"),
    ("small large", "clean photo", "some many", "hours", "a night"),
    ("smallest", "cleanest", "some", "minutes", "another table"),
    ("large", "photo special", "few", "minutes", "a probe"),
    ("small", "clean", "many", "minutes", "a slim net"),
]
ASKED = [
    (("small", "clean", "some", "hours"), ["pixels", "a night"], "an answer to each question"),
    (("small", "clean", "some", "minutes"), ["pixels"], "a row for `smallest` images"),
    (("large", "any", "any", "any"), ["a night", "a probe"], 'three questions answered by "any"'),
    (("small", "special", "few", "hours"), [], "a situation without a row"),
]


@exercise(
    "Which situation is it? answer = "
    '{"side": ..., "kind": ..., "number": ..., "time": ...}, in the words of the table.'
)
def rules_of_thumb_1(answer: Any) -> None:
    """Four facts of a task, in the table's words."""
    if isinstance(answer, dict):
        answer = {str(k).strip().lower(): _word(v) for k, v in answer.items()}
    expect_table(answer, SIGNS, SIGN_HINTS)


@exercise(
    "How many hours do 20 epochs of 60,000 images cost with HybridNet? "
    'answer = {"float32": ..., "both": ...}.'
)
def rules_of_thumb_2(answer: Any) -> None:
    """A bill from images per second."""
    measured = load_result("speed")["measured"]["HybridNet, 32 pixels"]
    right = dict.fromkeys(("float32", "both"), 0.0)
    if not isinstance(answer, dict) or answer.keys() != right.keys():
        expect_table(answer, right, {})
    rates = measured["training"]["images per second"]
    swapped = {"float32": _hours(rates["both"]), "both": _hours(rates["float32"])}
    for how in right:
        hours = _hours(rates[how])
        forward = _hours(measured["forward"]["images per second"][how])
        hints = {swapped[how]: "that is the other one of the two.", forward: FORWARD}
        _expect_hours(how, _number(how, answer[how]), hours, hints)


@exercise(
    "Write serving(rows, situation), the list of the starts whose rows serve a situation. "
    "answer = serving."
)
def rules_of_thumb_3(answer: Any) -> None:
    """The filter of the page, in Python."""
    expect_function(answer, "rows and a situation")
    rows = [dict(zip((*QUESTIONS, "start"), row, strict=True)) for row in ROWS]
    for asked, right, what in ASKED:
        situation = dict(zip(QUESTIONS, asked, strict=True))
        found = answer([dict(row) for row in rows], dict(situation))
        if not isinstance(found, list | tuple):
            raise NotYet(f"expected a list of starts, found {type(found).__name__}.")
        if found and isinstance(found[0], dict):
            raise NotYet('the list holds whole rows; expected row["start"] of each.')
        if sorted(map(str, found)) == sorted(right) and list(found) != right:
            raise NotYet("the starts are right, their order is not: that of the rows.")
        if list(found) != right:
            raise NotYet(_about(what, list(found), right))


@exercise(
    "Write without_last_stage(network), which takes layer4 out of any ResNet of torchvision and "
    "returns it. answer = without_last_stage."
)
def rules_of_thumb_4(answer: Any) -> None:
    """A ResNet made smaller, with blocks of either kind."""
    expect_function(answer, "a network")
    for name, build, width, classes in (
        ("resnet34", resnet34, 256, 7),
        ("resnet50", resnet50, 1024, 5),
    ):
        _expect_smaller(name, build, width, classes, answer)


def _word(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def _hours(rate: float) -> float:
    return IMAGES * EPOCHS / rate / 3600


def _number(how: str, value: Any) -> float:
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotYet(f"{how}: expected a number of hours, found {type(value).__name__}.")
    return float(value)


def _expect_hours(how: str, found: float, hours: float, more: dict[float, str]) -> None:
    hints = {
        hours: "",
        hours * 60: "those are minutes.",
        hours * 3600: "those are seconds.",
        hours / EPOCHS: "that is one epoch.",
        1 / hours: "that is the inverse.",
        **more,
    }
    for value, hint in hints.items():
        if abs(found / value - 1) < 0.04:
            if hint:
                raise NotYet(f"{how}: {hint}")
            return
    raise NotYet(f"{how}: {found:g} is not it: images times epochs, divided by images a second.")


def _about(what: str, found: list[Any], right: list[str]) -> str:
    extra = [start for start in found if start not in right]
    if extra == ["another table"]:
        return "`small` is a piece of the word `smallest`, and another answer: compare whole words."
    if extra:
        return f"{what}: {extra[0]!r} does not serve it; every question has to be answered."
    return f"{what}: a row is missing; it may serve several answers, and any is served by all."


def _expect_smaller(
    name: str, build: Callable[..., nn.Module], width: int, classes: int, shrink: Callable
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(weights=None, num_classes=classes).eval()
        kept = network.conv1.weight.detach().clone()
        body = sum(p.numel() for n, p in network.named_parameters() if not n.startswith("fc."))
        body -= sum(p.numel() for p in network.layer4.parameters())
        found = shrink(network)
    if not isinstance(found, nn.Module):
        raise NotYet(f"the function returned {type(found).__name__}; expected the network.")
    names = [path for path, _ in found.named_parameters()]
    if any(path.startswith("layer4.") for path in names):
        raise NotYet(f"{name}: layer4 still has parameters.")
    try:
        with torch.no_grad():
            scores = found.eval()(torch.zeros(2, 3, 64, 64))
    except AttributeError as error:
        raise NotYet(f"{name}: {error}. forward calls it by name; put something there.") from None
    except RuntimeError:
        raise NotYet(f"{name}: the head does not fit; how many maps does layer3 give?") from None
    if tuple(scores.shape) != (2, classes):
        raise NotYet(f"{name} had {classes} classes; 2 images give {tuple(scores.shape)}.")
    parameters = dict(found.named_parameters())
    first = parameters.get("conv1.weight")
    if first is None or first.shape != kept.shape or not torch.equal(first, kept):
        raise NotYet(f"{name}: the rest has other weights than before; change the network itself.")
    left = sum(p.numel() for p in parameters.values()) - (width + 1) * classes
    if left != body:
        more = "more than layer4 is gone" if left < body else "something was added"
        raise NotYet(f"{name}: {more}; {left:,} parameters in front of the head, not {body:,}.")
