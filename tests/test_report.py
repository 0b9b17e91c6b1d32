import math
import re

import pytest

from tlbook.candidates import Candidate, SelectionError
from tlbook.folds import Fold
from tlbook.report import SelectionReport
from tlbook.significance import corrected_error, paired_test


def fold(name, number, accuracy, train=0.9, epochs=2, seconds=1.0, error=None):
    row = {
        "train_loss": 0.5, "train_accuracy": train, "val_loss": 0.6, "val_accuracy": accuracy,
        "learning_rate": 0.1, "seconds": 1.0, "examples_per_second": 10.0,
    }  # fmt: skip
    rows = [] if error else [{"epoch": i + 1} | row for i in range(epochs)]
    return Fold(name, 1, number, 80, 20, rows, seconds, error)


ACCURACIES = {
    "large": [0.90, 0.92, 0.88, 0.91, 0.89],
    "small": [0.89, 0.92, 0.88, 0.90, 0.90],
    "tiny": [0.70, 0.72, 0.69, 0.71, 0.70],
}
SIZES = {"large": 1000, "small": 100, "tiny": 10}


def report(**changes):
    folds = [
        fold(name, number, accuracy, seconds=SIZES[name] / 100)
        for name, accuracies in (ACCURACIES | changes).items()
        for number, accuracy in enumerate(accuracies, start=1)
    ]
    return SelectionReport([Candidate(n, size, 2 * size, "") for n, size in SIZES.items()], folds)


def test_rows_hold_what_the_folds_measured():
    row = report().rows()[0]
    assert row["accuracy"] == pytest.approx(0.9)
    assert row["sd"] == pytest.approx(0.0158, abs=1e-4)
    reach = 2.776 * corrected_error(ACCURACIES["large"], 0.25)
    assert row["high"] - row["accuracy"] == pytest.approx(reach, rel=1e-3)
    assert (row["parameters"], row["mult_adds"], row["seconds"]) == (1000, 2000, 10)
    assert (row["folds"], row["failed"], row["epochs"]) == (5, 0, 2)
    assert report().to_dict()["candidate"] == ["large", "small", "tiny"]
    assert len(report().histories("small")) == 5
    assert report().histories("small")[0].best_epoch == 1


def test_overfitting_and_underfitting_are_named_by_the_stated_rule():
    def kind(train, accuracy, best=0.85):
        folds = [fold("net", i, accuracy, train) for i in (1, 2)]
        folds += [fold("other", i, best) for i in (1, 2)]
        candidates = [Candidate(name, 1, 1, "") for name in ("net", "other")]
        return SelectionReport(candidates, folds).rows()[0]["fit"]

    assert kind(0.95, 0.84) == "overfitting"
    assert kind(0.80, 0.79) == "underfitting"
    assert kind(0.88, 0.84) == "balanced"


def test_best_takes_the_cheapest_within_one_standard_error():
    assert report().best("highest") == "large"
    assert report().best() == "small"
    assert report(small=[0.80] * 5).best() == "large"
    assert report().best(cost="seconds") == "small"
    for wrong in ({"rule": "guess"}, {"cost": "beauty"}):
        with pytest.raises(SelectionError, match=f"{next(iter(wrong))} is"):
            report().best(**wrong)


def test_candidates_that_failed_or_stopped_early_are_not_the_best():
    whole = report()
    failed = [*whole.folds[:-1], fold("tiny", 5, 0, error="epoch 1: the loss is nan")]
    failed[0] = fold("large", 1, 0, error="epoch 2: the loss is inf")
    found = SelectionReport(whole.candidates, failed)
    assert found.best("highest") == "small"
    assert found.failures() == {
        "large": ["repeat 1, fold 1: epoch 2: the loss is inf"],
        "tiny": ["repeat 1, fold 5: epoch 1: the loss is nan"],
    }
    assert found.compare("large", "small").folds == 4
    longer = [fold("small", i, 0.5, epochs=3) for i in range(1, 6)]
    others = [f for f in whole.folds if f.candidate != "small"]
    assert SelectionReport(whole.candidates, others + longer).best() == "small"
    nothing = [fold(n, i, 0, error="nan") for n in SIZES for i in (1, 2)]
    empty = SelectionReport(whole.candidates, nothing)
    with pytest.raises(SelectionError, match="no candidate finished"):
        empty.best()
    with pytest.raises(SelectionError, match="finished 0 folds together"):
        empty.compare("large", "small")
    assert math.isnan(empty.rows()[0]["accuracy"]) and "nan" in str(empty)


def test_compare_is_the_paired_test_on_the_folds():
    expected = paired_test(
        ACCURACIES["large"], ACCURACIES["tiny"], val_per_train=0.25, names=("large", "tiny")
    )
    assert report().compare("large", "tiny") == expected
    assert re.search("more than noise", str(expected))
    assert "is noise" in str(report().compare("large", "small"))
    with pytest.raises(SelectionError, match="no candidate 'huge'"):
        report().compare("large", "huge")


def test_printed_it_is_a_table():
    lines = str(report()).splitlines()
    assert lines[0].split()[:3] == ["candidate", "accuracy", "sd"]
    assert lines[1].split()[:2] == ["large", "0.9000"]
    assert len({len(line) for line in lines}) == 1


def test_pictures_show_every_fold_and_every_candidate():
    axes = report().plot().axes[0]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in points] == list(ACCURACIES.values())
    assert [label.get_text() for label in axes.get_yticklabels()] == list(SIZES)
    pareto = report().plot_pareto().axes[0]
    assert [text.get_text() for text in pareto.texts] == list(SIZES)
    assert len(pareto.lines[0].get_xdata()) == 3, "each is cheaper or better than the others"


def test_to_frame_is_a_table_of_pandas():
    assert report().to_frame().loc["small", "parameters"] == 100
