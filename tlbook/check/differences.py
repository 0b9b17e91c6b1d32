"""Checks of the exercises in *is the difference real?*: intervals, paired and multiple tests.

scipy.stats is imported where it is used: it takes its time, and `import tlbook` brings this module.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tlbook.check.grading import NotYet, exercise, expect_function


@exercise(
    "57 of 60 test images are right. What is the 95 % Wilson interval of the accuracy? "
    "answer = (low, high), to three decimals."
)
def differences_1(answer: Any) -> None:
    """The Wilson interval of a count near its end, which the simple one leaves."""
    if isinstance(answer, str | Mapping) or not isinstance(answer, Iterable):
        raise NotYet(f"expected a pair (low, high), found {type(answer).__name__}.")
    ends = list(answer)
    if len(ends) != 2:
        raise NotYet(f"expected two numbers, low and high, found {len(ends)}.")
    low, high = (_number(end, name) for end, name in zip(ends, ("low", "high"), strict=True))
    if _near((low, high), _wilson(57)):
        return
    for wrong, hint in _interval_hints():
        if _near((low, high), wrong):
            raise NotYet(hint)
    if _near((low / 100, high / 100), _wilson(57)):
        raise NotYet("the ends are shares between 0 and 1, not percentages.")
    if low > high:
        raise NotYet("the first of the two is the lower end.")
    raise NotYet(
        f"{low:.3f} to {high:.3f} is not it: with z = 1.96 the middle is (57 + z²/2) / (60 + z²)."
    )


@exercise(
    "Twenty differences of four repetitions of five folds: mean 0.008, sd 0.012. What are the two "
    'p-values of the t-test? answer = {"naive": ..., "corrected": ...}.'
)
def differences_2(answer: Any) -> None:
    """Two p-values from the summary that a paper gives."""
    if not isinstance(answer, Mapping):
        raise NotYet(f"expected a dictionary, found {type(answer).__name__}.")
    if set(answer) != {"naive", "corrected"}:
        keys = sorted(map(str, answer))
        raise NotYet(f'expected the keys "naive" and "corrected", found {keys}.')
    for name, shared in (("naive", 0.0), ("corrected", 1 / 4)):
        value = _number(answer[name], name)
        if abs(value - _p(shared)) <= max(0.0006, 0.02 * _p(shared)):
            continue
        for wrong, hint in _p_hints(shared):
            if abs(value - wrong) <= 0.02 * wrong:
                raise NotYet(f"{name}: {hint}")
        raise NotYet(
            f"{name}: {value:.4g} is not it. Divide the mean by its standard error and ask the t "
            "distribution for both tails."
        )


@exercise(
    "Write image_test(first_right, second_right), McNemar's exact two-sided p-value for two "
    "boolean arrays. answer = image_test."
)
def differences_3(answer: Any) -> None:
    """McNemar's test on arrays where each typical mistake gives another p-value."""
    expect_function(answer, "two boolean arrays")
    for both, only_first, only_second, neither in IMAGE_COUNTS:
        counts = (both, only_first, only_second, neither)
        first = np.repeat([True, True, False, False], counts)
        second = np.repeat([True, False, True, False], counts)
        found = _number(answer(first.copy(), second.copy()), "the p-value")
        right = _mcnemar(only_first, only_second)
        if abs(found - right) <= 1e-6:
            continue
        where = (
            f"both right on {both}, the first alone on {only_first}, the second alone on "
            f"{only_second}, neither on {neither}: p is {right:.4f}, not {found:.4f}"
        )
        for wrong, hint in _image_hints(first, second):
            if abs(found - wrong) <= 1e-6:
                raise NotYet(f"{where}; {hint}")
        raise NotYet(f"{where}. Count the images that only one of the two gets right.")


@exercise(
    "Write survivors(p_values, level), which returns the names that Holm's correction leaves, the "
    "smallest p first. answer = survivors."
)
def differences_4(answer: Any) -> None:
    """Holm's correction on p-values where Bonferroni, no stop and no correction leave others."""
    expect_function(answer, "a dictionary of p-values and a level")
    for p_values, level, hints in FAMILIES:
        found = answer(dict(p_values), level)
        if isinstance(found, str | Mapping) or not isinstance(found, Iterable):
            raise NotYet(f"expected a list of names, found {type(found).__name__}.")
        names, right = list(found), _holm(p_values, level)
        if names == right:
            continue
        if sorted(map(str, names)) == sorted(right):
            raise NotYet(f"these names are right, in another order than {right}: smallest p first.")
        hint = hints.get(tuple(sorted(map(str, names))), "check each p against its own limit.")
        raise NotYet(f"of {p_values} at level {level}, {right} are left, not {names}: {hint}")


# Images on which both, only the first, only the second, neither is right.
IMAGE_COUNTS = [(70, 12, 3, 15), (70, 3, 12, 15), (40, 9, 4, 7), (8, 0, 0, 2), (0, 1, 0, 0)]
# p-values, level, and what leaves other names than Holm's correction.
FAMILIES: list[tuple[dict[str, float], float, dict[tuple[str, ...], str]]] = [
    (
        {"c": 0.03, "b": 0.016, "d": 0.5, "a": 0.001},
        0.05,
        {
            ("a",): "Bonferroni's limit stays at level / 4; Holm's grows with every name.",
            ("a", "b", "c"): "0.03 is above its own limit, 0.05 / 2.",
            ("c", "d"): "these are the ones that fall.",
        },
    ),
    (
        {"a": 0.02, "b": 0.021, "c": 0.022, "d": 0.04},
        0.05,
        {
            ("a", "b", "c", "d"): "0.02 is above 0.05 / 4, and where one falls all larger ones do.",
            ("c",): "stop at the first that is too large: the larger ones fall with it.",
            ("c", "d"): "stop at the first that is too large: the larger ones fall with it.",
            ("d",): "stop at the first that is too large: the larger ones fall with it.",
        },
    ),
    ({"b": 0.004, "a": 0.009}, 0.01, {("b",): "0.009 may be as large as 0.01 / 1."}),
    ({"a": 0.0125, "b": 0.2, "c": 0.3, "d": 0.4}, 0.05, {(): "at most includes the limit itself."}),
    ({}, 0.05, {}),
]


def _number(value: Any, name: str) -> float:
    """Return a number of any kind, 0-d arrays and tensors included, as a float."""
    try:
        if isinstance(value, str | bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise NotYet(f"{name}: expected a number, found {type(value).__name__}.") from None


def _near(found: tuple[float, float], right: tuple[float, float]) -> bool:
    return all(abs(a - b) <= 0.0006 for a, b in zip(found, right, strict=True))


def _wilson(count: int, confidence: float = 0.95, method: str = "wilson") -> tuple[float, float]:
    from scipy.stats import binomtest

    found = binomtest(count, 60).proportion_ci(confidence, method=method)
    return float(found.low), float(found.high)


def _interval_hints() -> list[tuple[tuple[float, float], str]]:
    reach = 1.96 * (0.95 * 0.05 / 60) ** 0.5
    return [
        ((0.95 - reach, 0.95 + reach), "that is the simple interval: it ends above 1."),
        ((0.95 - reach, 1.0), "that is the simple interval, cut off at 1."),
        (_wilson(57, method="exact"), 'that is the exact interval: pass method="wilson".'),
        (_wilson(3), "that is the interval of the errors; the question is about the accuracy."),
        (_wilson(57, 0.90), "that is an interval of 90 %: each tail of 95 % has 2.5 %."),
    ]


def _p(shared: float, *, folds: int = 20, degrees: int = 19) -> float:
    from scipy.stats import t

    return float(2 * t.sf(0.008 / (0.012 * (1 / folds + shared) ** 0.5), degrees))


def _p_hints(shared: float) -> list[tuple[float, str]]:
    normal = _p(shared, degrees=10**9)
    other = "naive" if shared else "corrected"
    return [
        (_p(shared) / 2, "that is one tail; a difference may have either sign."),
        (normal, "that is the normal distribution; take t with 19 degrees of freedom."),
        (_p(0.0 if shared else 1 / 4), f"that is the {other} one."),
        (_p(1 / 5), "a fold validates a fifth of all images, a quarter of what it trains on."),
        (_p(shared, degrees=4), "there are twenty differences, so 19 degrees of freedom."),
        (_p(shared, folds=5, degrees=4), "there are twenty differences, not five."),
    ]


def _mcnemar(only_first: int, only_second: int) -> float:
    from scipy.stats import binomtest

    total = only_first + only_second
    return float(binomtest(only_first, total).pvalue) if total else 1.0


def _image_hints(first: np.ndarray, second: np.ndarray) -> list[tuple[float, str]]:
    from scipy.stats import binomtest, chi2, ttest_rel

    b, c = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    if b + c == 0 or len(first) == 1:
        return []
    t_test = ttest_rel(first.astype(float), second.astype(float)).pvalue
    one_sided = [binomtest(b, b + c, alternative=side).pvalue for side in ("greater", "less")]
    return [
        *((float(p), "that is one side; either network may be better.") for p in one_sided),
        (float(t_test), "that is a t-test; the exact one is binomial."),
        (float(binomtest(b, len(first)).pvalue), "images on which both agree are not tossed."),
        *(
            (
                float(chi2.sf((abs(b - c) - less) ** 2 / (b + c), 1)),
                "that is chi-square, not exact.",
            )
            for less in (0, 1)
        ),
    ]


def _holm(p_values: Mapping[str, float], level: float) -> list[str]:
    left: list[str] = []
    for name in sorted(p_values, key=p_values.__getitem__):
        if p_values[name] > level / (len(p_values) - len(left)):
            break
        left.append(name)
    return left
