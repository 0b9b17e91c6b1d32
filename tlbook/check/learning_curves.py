"""Checks of the exercises in *learning curves and cost*: halving, power law, front, dimension.

scipy and torchvision's zoo are imported where they are used: they take their time.
"""

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tlbook.check.grading import NotYet, exercise, expect_function


@exercise(
    "Successive halving of 27 candidates by 3, the first round 2 epochs, the last 54, each round "
    "from scratch: how many epochs are that, and how many for all to the end? answer = "
    '{"halving": ..., "all": ...}.'
)
def learning_curves_1(answer: Any) -> None:
    """The work of four rounds of equal cost."""
    hints = {
        "halving": {
            54: "that is the work of one round; add up all of them.",
            80: "a round costs its epochs times its candidates; these are the epochs alone.",
            162: "each round trains from scratch, so the last one costs 54 epochs, too.",
            1458: "that is the work if nobody is sent home.",
            2160: "only nine take part in the second round, and fewer in the others.",
        },
        "all": {
            54: "that is one candidate; there are 27.",
            216: "that is the halving.",
            80: "to the end are 54 epochs for each of the 27.",
            2160: "without halving there are no shorter rounds, only the 54 epochs.",
        },
    }
    values = _numbers(answer, hints)
    for key, right in {"halving": 216, "all": 1458}.items():
        if values[key] != right:
            hint = hints[key].get(values[key], "epochs times candidates, for each round.")
            raise NotYet(f"{key}: {values[key]:g} is not it; {hint}")


@exercise(
    "The errors with 100, 225, 400, 900 images are 0.32, 0.24, 0.20, 0.16. By the power law with a "
    "floor, how many images bring 0.10 and 0.07? math.inf where none do. "
    'answer = {"0.10": ..., "0.07": ...}.'
)
def learning_curves_2(answer: Any) -> None:
    """A law read backwards, on both sides of its floor."""
    values = _numbers(answer, {"0.10": None, "0.07": None})
    if not abs(values["0.10"] / 14_400 - 1) <= 0.03:
        for wrong, hint in _law_hints().items():
            if abs(values["0.10"] / wrong - 1) < 0.03:
                raise NotYet(f"0.10: {values['0.10']:,.0f} is not it; {hint}")
        raise NotYet(
            f"0.10: {values['0.10']:,.0f} is not it; fit c + a n^-b, then solve it for n: the "
            "error above the floor, divided by a, to the power -1/b."
        )
    if not math.isinf(values["0.07"]):
        raise NotYet(f"0.07: {values['0.07']:,.0f} is not it; look at c, the floor of your fit.")


@exercise(
    "Of torchvision's classification networks with DEFAULT weights and at most 0.4 billion "
    "mult-adds, which does none beat in mult-adds and top-1 accuracy? answer = list of names."
)
def learning_curves_3(answer: Any) -> None:
    """The front of published networks, by the metadata of their weights."""
    if isinstance(answer, str | Mapping) or not isinstance(answer, Iterable):
        raise NotYet(f"expected a list of names, found {type(answer).__name__}.")
    names = [str(name).strip().lower() for name in answer]
    zoo = _zoo()
    if unknown := [name for name in names if name not in zoo]:
        raise NotYet(
            f"{unknown[0]!r} is not a name of list_models(module=models) with such weights."
        )
    right = _front({name: row for name, row in zoo.items() if row[0] <= 0.4})
    for name in names:
        work, score = zoo[name]
        if work > 0.4:
            raise NotYet(f"{name} has {work} billion mult-adds, more than 0.4.")
        better = [n for n, (w, s) in zoo.items() if w <= work and s >= score and n != name]
        if better:
            raise NotYet(f"{name} ({work} billion, {score} %) is beaten by {better[0]}.")
    if missing := [name for name in right if name not in names]:
        raise NotYet(f"{len(missing)} of {len(right)} are missing, one with {zoo[missing[0]][0]}.")
    if len(names) > len(set(names)):
        raise NotYet("each name once.")


@exercise(
    "Write two_nearest(points): the dimension from each point's two nearest neighbours, where rows "
    "that occur several times count once. answer = two_nearest."
)
def learning_curves_4(answer: Any) -> None:
    """The estimate on points without and with copies."""
    expect_function(answer, "an array of points, one a row")
    random = np.random.default_rng(0)
    plain = random.random((60, 3)) @ random.normal(size=(3, 8))
    copied = np.concatenate([plain, plain[:5]])
    for points, what in ((plain, "without copies"), (copied, "with five copies")):
        found, right = _number(answer(points.copy()), "the dimension"), _two_nearest(points)
        if abs(found - right) <= 1e-6:
            continue
        for wrong, hint in _dimension_hints(points):
            if abs(found - wrong) <= 1e-6:
                raise NotYet(f"60 points {what}: {hint}")
        raise NotYet(
            f"60 points {what}: {right:.3f}, not {found:.3f}. It is one over the mean of "
            "log(second distance / first distance)."
        )


def _number(value: Any, name: str) -> float:
    """Return a number of any kind, 0-d arrays and tensors included, as a float."""
    try:
        if isinstance(value, str | bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise NotYet(f"{name}: expected a number, found {type(value).__name__}.") from None


def _numbers(answer: Any, keys: Iterable[str]) -> dict[str, float]:
    """Return the numbers of a dictionary with these keys."""
    if not isinstance(answer, Mapping):
        raise NotYet(f"expected a dictionary, found {type(answer).__name__}.")
    if set(answer) != set(keys):
        raise NotYet(f"expected the keys {list(keys)}, found {sorted(map(str, answer))}.")
    return {key: _number(answer[key], key) for key in keys}


def _law_hints() -> dict[float, str]:
    # Without a floor: least squares on the errors, and on their logarithms.
    from scipy.optimize import curve_fit

    n, error = np.array([100.0, 225, 400, 900]), np.array([0.32, 0.24, 0.20, 0.16])
    (a, b), _ = curve_fit(lambda n, a, b: a * n**-b, n, error, p0=[1, 0.5])
    slope, height = np.polyfit(np.log(n), np.log(error), 1)
    no_floor = "your law has no floor; fit c, too."
    return {
        float((a / 0.1) ** (1 / b)): no_floor,
        float(np.exp((height - np.log(0.1)) / -slope)): no_floor,
        576: "that is a n^-b = 0.10; the error above the floor is 0.10 - c.",
    }


@functools.cache
def _zoo() -> dict[str, tuple[float, float]]:
    """Return mult-adds in billions and top-1 accuracy of each classification network."""
    from torchvision import models

    zoo = {}
    for name in models.list_models(module=models):
        meta = models.get_model_weights(name).DEFAULT.meta
        zoo[name] = meta["_ops"], meta["_metrics"]["ImageNet-1K"]["acc@1"]
    return zoo


def _front(places: Mapping[str, tuple[float, float]]) -> list[str]:
    def beaten(cost: float, score: float) -> bool:
        others = places.values()
        return any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in others)

    return [name for name, place in places.items() if not beaten(*place)]


def _nearest(points: np.ndarray) -> np.ndarray:
    """Return the distances of each point to all, itself included, the smallest first."""
    from scipy.spatial.distance import cdist

    return np.sort(cdist(points, points), axis=1)


def _two_nearest(points: np.ndarray) -> float:
    nearest = _nearest(np.unique(points, axis=0))
    return float(1 / np.log(nearest[:, 2] / nearest[:, 1]).mean())


def _dimension_hints(points: np.ndarray) -> list[tuple[float, str]]:
    once, nearest = np.unique(points, axis=0), _nearest(points)
    logs = np.log(_nearest(once)[:, 2] / _nearest(once)[:, 1])
    apart = nearest[nearest[:, 1] > 0]
    ten = _nearest(once)[:, 1:11]
    return [
        (
            0.0,
            "a distance of zero swallows all others: that of a point to itself, or to its copy.",
        ),
        (float(logs.mean()), "that is the mean of the logarithms; the dimension is one over it."),
        (float((1 / logs).mean()), "take the mean of the logarithms first, then one over it."),
        (float(1 / np.log10(np.exp(logs)).mean()), "take the natural logarithm."),
        (float(1 / np.median(logs)), "that is the median; take the mean."),
        (float(1 / np.log(ten[:, -1:] / ten[:, :-1]).mean()), "that is with ten neighbours."),
        (
            float(1 / np.log(apart[:, 2] / apart[:, 1]).mean()),
            "points that have a copy are left out altogether; keep one of each.",
        ),
    ]
