"""The protocol of the two case studies: search in the training photographs, choose, look once.

The choice is stored before a validation photograph is opened. Each method is then fitted to all
training photographs and looks at the validation photographs once per seed; what is stored already
is not measured again.
"""

import argparse
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.metrics import log_loss

from benchmarks.photographs import Member, OldHead, Study, Task
from benchmarks.results import stored_result, write_result

Candidates = dict[str, tuple[Member, ...]]
Extra = dict[str, Callable[[Study, int], dict[str, Any]]]
# The choice for somebody whose classes the old head does not know.
WITHOUT_OLD_HEAD = "chosen without old head"


def scores(log_odds: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    """Return accuracy, log loss, and the numbers of the photographs that are judged wrongly."""
    wrong = np.flatnonzero((log_odds > 0) != targets)
    loss = float(log_loss(targets, expit(log_odds), labels=[0, 1]))
    accuracy = 1 - len(wrong) / len(targets)
    return {"accuracy": round(accuracy, 4), "log loss": round(loss, 4), "wrong": wrong.tolist()}


def searched(study: Study, candidates: Candidates) -> dict[str, dict]:
    """Return the cross-validated scores of every candidate, the mean of its members' log-odds."""
    members = dict.fromkeys(member for parts in candidates.values() for member in parts)
    known = {}
    for member in members:
        known[member] = study.out_of_fold(member)
        print(f"{known[member][1]:7.0f} s  {member}", flush=True)
    rows = {}
    for name, parts in candidates.items():
        mean = np.mean([known[member][0] for member in parts], axis=0)
        spent = sum(known[member][1] for member in parts)
        rows[name] = {**scores(mean, study.targets), "processor seconds": round(spent, 1)}
        found = "log loss {log loss:.4f}, accuracy {accuracy:.4f}".format_map(rows[name])
        print(f"{found}: {name}", flush=True)
    return rows


def chosen(rows: dict[str, dict]) -> str:
    """Return the candidate with the lowest log loss, which is finer than counting errors."""
    return min(rows, key=lambda name: rows[name]["log loss"])


def reported(method: str, rows: dict[str, dict], candidates: Candidates) -> str:
    """Return the candidate that a method stands for, by what the search has found."""
    if method == "chosen":
        return chosen(rows)
    if method == WITHOUT_OLD_HEAD:
        new = [n for n, parts in candidates.items() if not any(type(p) is OldHead for p in parts)]
        return chosen({name: rows[name] for name in new})
    return method


@functools.cache  # two methods may share a member
def of_validation(study: Study, member: Member, seed: int) -> np.ndarray:
    """Fit to all training photographs; return log-odds of the validation photographs."""
    every, shown = (np.arange(len(study.photographs(split))) for split in ("train", "val"))
    return study.log_odds(member, every, "val", shown, seed)


def last_look(study: Study, members: tuple[Member, ...], seed: int) -> dict[str, Any]:
    """Return what the mean of some members is worth on the validation photographs."""
    targets = study.photographs("val").targets.numpy()
    odds = [of_validation(study, member, seed) for member in members]
    return {"seed": seed, "photographs": len(targets), **scores(np.mean(odds, axis=0), targets)}


def measure(
    name: str, task: Task, candidates: Candidates, methods: Sequence[str], extra: Extra
) -> None:
    """Search, store the choice, then measure what is reported.

    Args:
        name: of the result file.
        task: the photographs.
        candidates: all that may be chosen.
        methods: what is reported: "chosen", `WITHOUT_OLD_HEAD`, names of candidates, or names in
            `extra`.
        extra: other methods, functions of the study and a seed.
    """
    options = _options()
    study = Study(task._replace(limit=options.limit))
    measured = stored_result(name) if options.write else {}
    if "chosen" not in measured:
        measured["source"] = study.photographs("train").source
        measured["search"] = searched(study, candidates)
        measured["chosen"] = chosen(measured["search"])
        measured["runs"] = {}
        if options.write:
            write_result(name, measured)
    print(f"chosen: {measured['chosen']}", flush=True)
    if options.only == "search":
        return
    for method in methods:
        runs = measured["runs"].setdefault(method, [])
        for seed in options.seeds:
            if seed in [run["seed"] for run in runs]:
                continue
            if method in extra:
                runs.append(extra[method](study, seed))
            else:
                candidate = reported(method, measured["search"], candidates)
                runs.append(last_look(study, candidates[candidate], seed))
            print(method, runs[-1], flush=True)
            if options.write:
                write_result(name, measured)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="*", type=int, default=range(5))
    parser.add_argument("--only", choices=["search"], help="open no validation photograph")
    parser.add_argument(
        "--limit", type=int, help="training photographs of each class, 10 or more, to try it out"
    )
    parser.add_argument("--write", action="store_true", help="store the result file")
    options = parser.parse_args()
    if options.limit and options.write:
        parser.error("--limit is for trying it out: its results are not stored")
    return options
