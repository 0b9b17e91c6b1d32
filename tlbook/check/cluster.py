"""Checks of the exercises in *on a cluster*.

Counts are compared with hints for typical slips; a reader's function runs on cases at which the
typical mistakes differ, and from different random states.
"""

import math
from collections.abc import Callable
from math import ceil
from typing import Any

import torch
from torch import Tensor

from tlbook.check.grading import NotYet, exercise, expect_function, expect_table

BYTES = {"in every task": 4_700_000, "handed over": 18_800}
BYTES_HINTS = {
    "in every task": {
        "_18800": "that would be once for each worker.",
        "_50000": "that is the number of tasks; each brings 94 MB.",
        "_94000": "that is once for each candidate; each of its folds is a task.",
        "_4700": "that is once for each fold of one candidate (or gigabytes, not megabytes).",
        "_4.7": "that would be terabytes; the answer is in megabytes.",
        "_23500": "that is what one worker reads.",
    },
    "handed over": {
        "_94": "that is one worker; all of them need the data.",
        "_18.8": "that would be gigabytes; the answer is in megabytes.",
        "_94000": "that is once for each candidate: what has been handed over stays.",
        "_4700": "that is once for each fold: what has been handed over stays.",
        "_200": "that is the number of workers; each reads 94 MB.",
        "_4700000": "that is once for each task.",
    },
}
PLANS = [  # folds, seconds, overhead, workers, folds in a task
    (50_000, 0.2, 0.005, 1000, 1),
    (50_000, 0.2, 0.005, 1000, 10),
    (100, 3.0, 0.01, 7, 8),
    (60, 10.0, 0.001, 64, 4),
]


@exercise("Bytes read by 200 workers: answer = the dictionary of megabytes for both ways.")
def cluster_1(answer: Any) -> None:
    """What all workers read, if tasks bring the data and if the data are handed over."""
    if isinstance(answer, dict):
        answer = {key: _whole(value) for key, value in answer.items()}
    expect_table(answer, BYTES, BYTES_HINTS)


@exercise("60 folds of 100 minutes in eight hours: answer = the least number of workers.")
def cluster_2(answer: Any) -> None:
    """Workers for a deadline, if a fold cannot be divided."""
    value = _number(answer)
    if value == 15:
        return
    if 12 <= value <= 13:
        raise NotYet(
            "that divides the hours of all folds by eight, as if a fold could be cut in two: how "
            "many whole folds does one worker finish?"
        )
    if value == 4:
        raise NotYet("that is what one worker finishes in eight hours; there are 60 folds.")
    if value == 60:
        raise NotYet("with a worker for each fold it is over in 100 minutes: fewer are enough.")
    if value == 3:
        raise NotYet("that is for one fold of each candidate; each has five.")
    raise NotYet(f"with {value:g} workers it takes too long, or fewer would do.")


@exercise("Write plan(folds, seconds, overhead, workers, per_task), the seconds. answer = plan.")
def cluster_3(answer: Any) -> None:
    """The plan of the chapter for tasks of several folds."""
    expect_function(answer, "folds, seconds, overhead, workers and per_task")
    for case in PLANS:
        found, right = _number(answer(*case)), _plan(*case)
        if math.isclose(found, right, rel_tol=1e-6):
            continue
        folds, _, _, workers, per_task = case
        where = f"for {folds} folds on {workers} workers, {per_task} in a task,"
        raise NotYet(f"{where} {_slip(found, case)}")


@exercise("Write first_weights(number): the same anywhere, and nothing else changes.")
def cluster_4(answer: Any) -> None:
    """Seeded weights of a MobileNetV3, from any state and in any order."""
    expect_function(answer, "a number")
    with torch.random.fork_rng(devices=[]):
        first = [_weights(answer, number, state=1) for number in (3, 8)]
        second = [_weights(answer, number, state=2) for number in (8, 3)][::-1]
    if not all(torch.equal(*pair) for pair in zip(first, second, strict=True)):
        raise NotYet(
            "called again in another order the same number gives other weights: what the network "
            "draws has to hang on the number alone."
        )
    if torch.equal(*first):
        raise NotYet("the numbers 3 and 8 give the same weights.")


def _plan(folds: int, seconds: float, overhead: float, workers: int, per_task: int) -> float:
    tasks = ceil(folds / per_task)
    return max(tasks * overhead, ceil(tasks / workers) * per_task * seconds)


def _slip(found: float, case: tuple) -> str:
    folds, seconds, overhead, workers, per_task = case
    tasks = ceil(folds / per_task)
    slips = {
        max(folds * overhead, ceil(tasks / workers) * per_task * seconds): "an overhead is paid "
        "for each task, and a task has several folds.",
        max(tasks * overhead, ceil(tasks / workers) * seconds): "a task takes as long as all its "
        "folds together.",
        max(tasks * overhead, ceil(folds / workers) * seconds): "a worker takes whole tasks: "
        "divide the tasks among the workers, and round up.",
        max(tasks * overhead, folds * seconds / workers): "a worker takes whole tasks: divide "
        "the tasks among the workers, and round up.",
        max(tasks * overhead, ceil(folds / workers) * per_task * seconds): "that gives a whole "
        "task to each fold: divide the tasks among the workers, and round up.",
        tasks * overhead + ceil(tasks / workers) * per_task * seconds: "scheduler and workers "
        "are busy at the same time: the longer one counts, not the sum.",
        ceil(tasks / workers) * per_task * seconds: "the time of the scheduler is missing.",
    }
    for value, hint in slips.items():
        if math.isclose(found, value, rel_tol=1e-6):
            return hint
    return f"{found:g} s is not the right prediction, {_plan(*case):g} s."


def _weights(build: Callable[[int], Any], number: int, *, state: int) -> Tensor:
    torch.manual_seed(state)
    before = torch.get_rng_state()
    weights = build(number)
    if not isinstance(weights, Tensor):
        raise NotYet(f"expected a tensor, your function returns {type(weights).__name__}.")
    if weights.shape != (16, 3, 3, 3):
        raise NotYet(
            f"expected the weight of the first convolution, (16, 3, 3, 3), and your function "
            f"returns {tuple(weights.shape)}."
        )
    if not torch.equal(torch.get_rng_state(), before):
        raise NotYet(
            "PyTorch's random state is another one afterwards: whoever draws next gets other "
            "numbers."
        )
    return weights.detach().clone()


def _whole(value: Any) -> Any:
    """Return 3 for 3.0, and for a tensor or NumPy number of it, so that its hint is found."""
    if hasattr(value, "item"):
        value = value.item()
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(answer: Any) -> float:
    answer = _whole(answer)
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        raise NotYet(f"expected a number, found {type(answer).__name__}.")
    return float(answer)
