"""What a selection found: every fold of every candidate, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from tlbook.candidates import Candidate, SelectionError
from tlbook.folds import Fold
from tlbook.history import History
from tlbook.plots import plot_folds, plot_pareto
from tlbook.significance import PairedTest, corrected_error, corrected_interval, paired_test

if TYPE_CHECKING:
    from pandas import DataFrame

    from tlbook.display import Figure

GAP = 0.05  # training accuracy above validation accuracy that counts as overfitting
_SHOWN = {
    "candidate": "{}", "accuracy": "{:.4f}", "sd": "{:.4f}", "low": "{:.4f}", "high": "{:.4f}",
    "gap": "{:+.4f}", "fit": "{}", "parameters": "{:,}", "mult_adds": "{:,}", "seconds": "{:.1f}",
    "folds": "{}", "failed": "{}",
}  # fmt: skip


@dataclass(frozen=True)
class SelectionReport:
    """The candidates of a selection and their folds. Printed, it is a table.

    Attributes:
        candidates: what was compared, in the order given.
        folds: every fold, those that failed included.
        confidence: of the intervals, in (0, 1).

    Example:
        >>> rows = [[{"val_accuracy": a, "train_accuracy": 0.9}] for a in (0.8, 0.9)]
        >>> folds = [Fold("net", 1, n, 8, 8, row, 1.0) for n, row in enumerate(rows, start=1)]
        >>> report = SelectionReport([Candidate("net", 10, 20, "")], folds)
        >>> report.scores("net"), report.best()
        ([0.8, 0.9], 'net')
    """

    candidates: list[Candidate]
    folds: list[Fold] = field(repr=False)
    confidence: float = 0.95

    def scores(self, name: str) -> list[float]:
        """Return the validation accuracy after the last epoch of each fold that finished."""
        return [fold.accuracy for fold in self._of(name) if fold.error is None]

    def histories(self, name: str) -> list[History]:
        """Return the epochs of each fold of a candidate, for `plot_history`."""
        return [fold.history for fold in self._of(name)]

    def failures(self) -> dict[str, list[str]]:
        """Return for each candidate with failed folds what went wrong in them."""
        names = [candidate.name for candidate in self.candidates]
        errors = {
            name: [
                f"repeat {fold.repeat}, fold {fold.fold}: {fold.error}"
                for fold in self._of(name)
                if fold.error
            ]
            for name in names
        }
        return {name: found for name, found in errors.items() if found}

    def rows(self) -> list[dict[str, Any]]:
        """Return one dictionary for each candidate.

        Returns:
            With the keys `candidate`; `accuracy`, the mean over folds of the validation accuracy
            after the last epoch, its `sd` over folds, and `low` and `high` of the corrected
            interval; `train_accuracy` of the last epoch, measured while the weights move;
            `gap`, how far that lies above the validation accuracy; `fit`: "overfitting" if the
            gap is above 0.05, else "underfitting" if the candidate does not even reach on its
            training data what the best one reaches on new data, else "balanced"; `parameters`;
            `mult_adds` for one image; `seconds` of a fold; `epochs`; `folds` that finished, and
            `failed`. Figures of candidates without a finished fold are NaN.
        """
        means = [fmean(scores) for c in self.candidates if (scores := self.scores(c.name))]
        return [self._row(candidate, max(means, default=0.0)) for candidate in self.candidates]

    def to_dict(self) -> dict[str, list]:
        """Return the rows as columns."""
        rows = self.rows()
        return {key: [row[key] for row in rows] for key in rows[0]}

    def to_frame(self) -> DataFrame:
        """Return the rows as a table, one candidate a row, its name the index."""
        from pandas import DataFrame

        return DataFrame(self.to_dict()).set_index("candidate")

    def compare(self, first: str, second: str) -> PairedTest:
        """Test the difference between two candidates on the folds that both finished.

        Raises:
            SelectionError: if there are fewer than two such folds.
        """
        found = [
            {(f.repeat, f.fold): f for f in self._of(name) if not f.error}
            for name in (first, second)
        ]
        shared = [place for place in found[0] if place in found[1]]
        if len(shared) < 2:
            raise SelectionError(
                f"{first!r} and {second!r} finished {len(shared)} folds together: expected 2 or "
                "more; failures() says what went wrong"
            )
        scores = [[folds[place].accuracy for place in shared] for folds in found]
        return paired_test(
            *scores,
            val_per_train=_val_per_train([found[0][place] for place in shared]),
            names=(first, second),
            confidence=self.confidence,
        )

    def best(self, rule: str = "one_standard_error", *, cost: str = "parameters") -> str:
        """Return the name of the candidate to take.

        Candidates whose folds did not all finish, or that had fewer epochs than others, are out.

        Args:
            rule: "one_standard_error": the cheapest candidate whose accuracy is at most one
                corrected standard error below the highest; "highest": that one.
            cost: "parameters", "mult_adds" or "seconds".

        Raises:
            SelectionError: for another rule or cost, or if every candidate failed.
        """
        if rule not in ("one_standard_error", "highest"):
            raise SelectionError(f'rule is {rule!r}: expected "one_standard_error" or "highest"')
        if cost not in ("parameters", "mult_adds", "seconds"):
            raise SelectionError(
                f'cost is {cost!r}: expected "parameters", "mult_adds" or "seconds"'
            )
        rows = [row for row in self.rows() if row["folds"] and not row["failed"]]
        rows = [row for row in rows if row["epochs"] == max(r["epochs"] for r in rows)]
        if not rows:
            raise SelectionError("no candidate finished all its folds: failures() says why")
        top = max(rows, key=lambda row: row["accuracy"])
        if rule == "highest":
            return top["candidate"]
        scores = self.scores(top["candidate"])
        error = 0.0
        if len(scores) > 1:
            error = corrected_error(scores, _val_per_train(self._of(top["candidate"])))
        near = [row for row in rows if row["accuracy"] >= top["accuracy"] - error]
        return min(near, key=lambda row: row[cost])["candidate"]

    def plot(self) -> Figure:
        """Plot every fold of every candidate as a point, with mean and interval."""
        rows = {row["candidate"]: row for row in self.rows() if row["folds"]}
        scores = {name: self.scores(name) for name in rows}
        bounds = {name: (row["low"], row["high"]) for name, row in rows.items()}
        title = f"every fold, mean and {self.confidence:.0%} interval"
        return plot_folds(scores, bounds, title=title)

    def plot_pareto(self) -> Figure:
        """Plot seconds of a fold against accuracy; those that nothing beats in both are joined."""
        rows = [row for row in self.rows() if row["folds"]]
        places = {row["candidate"]: (row["seconds"], row["accuracy"]) for row in rows}
        return plot_pareto(places)

    def __str__(self) -> str:
        cells = [[form.format(row[key]) for key, form in _SHOWN.items()] for row in self.rows()]
        table = [list(_SHOWN), *cells]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in table
        ]
        failed = [f"{name} failed: {errors[0]}" for name, errors in self.failures().items()]
        return "\n".join([*lines, *failed])

    def _of(self, name: str) -> list[Fold]:
        if name not in (known := [candidate.name for candidate in self.candidates]):
            raise SelectionError(f"there is no candidate {name!r}: expected one of {known}")
        return [fold for fold in self.folds if fold.candidate == name]

    def _row(self, candidate: Candidate, best: float) -> dict[str, Any]:
        folds = self._of(candidate.name)
        done = [fold for fold in folds if fold.error is None]
        scores = [fold.accuracy for fold in done]
        low, high = corrected_interval(scores, _val_per_train(folds), self.confidence)
        accuracy = _mean(scores)
        trained = _mean([fold.train_accuracy for fold in done])
        return {
            "candidate": candidate.name,
            "accuracy": accuracy,
            "sd": float(np.std(scores, ddof=1)) if len(scores) > 1 else math.nan,
            "low": low,
            "high": high,
            "train_accuracy": trained,
            "gap": trained - accuracy,
            "fit": _kind_of_fit(trained, accuracy, best),
            "parameters": candidate.parameters,
            "mult_adds": candidate.mult_adds,
            "seconds": _mean([fold.seconds for fold in done]),
            "epochs": max((len(fold.rows) for fold in done), default=0),
            "folds": len(done),
            "failed": len(folds) - len(done),
        }


def _kind_of_fit(trained: float, accuracy: float, best: float) -> str:
    if math.isnan(accuracy):
        return "failed"
    if trained - accuracy > GAP:
        return "overfitting"
    return "underfitting" if trained < best else "balanced"


def _val_per_train(folds: Sequence[Fold]) -> float:
    return fmean(fold.val_examples / fold.train_examples for fold in folds)


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan
