import functools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import joblib
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from tlbook.data import DataError
from tlbook.selection import (
    SelectionError,
    cross_validate,
    find_duplicates,
    learning_curve,
    successive_halving,
)

QUICK = {"folds": 3, "epochs": 2, "batch_size": 16, "precision": "float32"}


def blobs(examples=60, classes=3, seed=0, size=4):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(examples) % classes
    noise = torch.randn(examples, size, generator=generator)
    return TensorDataset(nn.functional.one_hot(targets, size).float() * 2 + noise, targets)


def small(width=8, outputs=3):
    hidden = [nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2)]
    return nn.Sequential(*hidden, nn.Linear(width, outputs))


CANDIDATES = {"linear": lambda: nn.Linear(4, 3), "small": small}


def without_seconds(report):
    rows = [asdict(fold) for fold in report.folds]
    for row in rows:
        del row["seconds"]
        for epoch in row["rows"]:
            del epoch["seconds"], epoch["examples_per_second"]
    return sorted(json.dumps(row) for row in rows)


def test_the_report_is_the_same_for_any_number_of_workers_and_order():
    data = blobs()
    one = cross_validate(CANDIDATES, data, repeats=2, **QUICK)
    two = cross_validate(CANDIDATES, data, repeats=2, n_jobs=2, **QUICK)
    turned = dict(reversed(CANDIDATES.items()))
    with joblib.parallel_config("threading", n_jobs=3):
        other = cross_validate(turned, data, repeats=2, **QUICK)
    assert without_seconds(one) == without_seconds(two) == without_seconds(other)
    assert len(one.folds) == 2 * 3 * 2
    assert len({tuple(one.scores(name)) for name in CANDIDATES}) == 2


def test_every_fold_begins_anew_and_another_seed_is_another_run():
    data = blobs()
    first = cross_validate({"small": small}, data, **QUICK)
    losses = [fold.rows[0]["train_loss"] for fold in first.folds]
    assert len(set(losses)) == 3
    again = cross_validate({"small": small}, data, seed=1, **QUICK)
    assert not set(losses) & {fold.rows[0]["train_loss"] for fold in again.folds}


def test_fit_alone_gives_what_a_fold_gives():
    from tlbook.isolation import alone
    from tlbook.resampling import make_splits
    from tlbook.splits import LabelledSubset
    from tlbook.training import fit

    data = blobs()
    fold = cross_validate({"small": small}, data, **QUICK).folds[1]
    options = {"folds": 3, "repeats": 1, "seed": 0, "groups": None, "duplicates": "refuse"}
    split = make_splits(data, torch.arange(60).numpy(), **options)[1]
    parts = [LabelledSubset(data, items.tolist()) for items in (split.train, split.val)]
    with alone(split.seed, threads=1):
        how = {"epochs": 2, "batch_size": 16, "precision": "float32", "seed": split.seed}
        history = fit(small(), *parts, **how)
    assert history.epochs[-1].val_loss == pytest.approx(fold.rows[-1]["val_loss"], abs=1e-6)


def test_random_state_and_threads_of_the_caller_stay_as_they_were():
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    cross_validate({"small": small}, blobs(), threads=2, **QUICK)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_augmentation_meets_training_images_only():
    images = torch.zeros(40, 1, 2, 2)
    targets = torch.arange(40) % 2
    images[:, 0, 0, 0] = targets * 4.0 - 2.0
    images[:, 0, 1, 1] = torch.linspace(0, 1, 40)  # no two alike
    data = TensorDataset(images, targets)
    nets = {"linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 2))}
    sgd = functools.partial(torch.optim.SGD, lr=0.5)
    settings = QUICK | {"epochs": 4, "batch_size": 8, "optimizer": sgd}
    [row] = cross_validate(nets, data, augment=torch.neg, **settings).rows()
    assert row["train_accuracy"] > 0.8
    assert row["accuracy"] == 0.0, "a network trained on negatives meets the images as they are"


def test_what_cannot_work_is_refused_before_anything_runs(tmp_path):
    def broken():
        raise RuntimeError("no such layer")

    kept = small()
    for factory, words in {
        broken: "no such layer",
        (lambda: nn.Linear(5, 3)): "shapes",
        (lambda: nn.Linear(4, 2)): "2 outputs",
        (lambda: kept): "same network",
        (lambda: "net"): "str",
    }.items():
        with pytest.raises(SelectionError, match=f"'bad'.*{words}"):
            cross_validate({"good": small, "bad": factory}, blobs(), store=tmp_path, **QUICK)
    with pytest.raises(SelectionError, match="expected a function"):
        cross_validate({"bad": kept}, blobs(), **QUICK)
    with pytest.raises(SelectionError, match="no candidates"):
        cross_validate({}, blobs(), **QUICK)
    with pytest.raises(DataError, match=r"3 folds need 3 images.*2 of '1'"):
        few = TensorDataset(torch.rand(12, 4), torch.tensor([0] * 10 + [1] * 2))
        cross_validate({"good": lambda: nn.Linear(4, 2)}, few, store=tmp_path, **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_a_diverged_fold_is_kept_as_failed_and_the_others_go_on(tmp_path):
    def sometimes():
        model = small()
        if torch.initial_seed() % 2:
            nn.init.constant_(model[-1].weight, float("inf"))
        return model

    settings = QUICK | {"folds": 5}
    report = cross_validate({"s": sometimes, "small": small}, blobs(), store=tmp_path, **settings)
    failed = len(report.failures()["s"])
    assert 0 < failed < 5 and "epoch 1" in report.failures()["s"][0]
    row, other = report.rows()
    assert (row["folds"], row["failed"], other["folds"]) == (5 - failed, failed, 5)
    assert report.best() == "small"
    assert "s failed: repeat 1, fold" in str(report)
    assert len(list(tmp_path.glob("*.json"))) == 10
    again = cross_validate({"s": sometimes, "small": small}, blobs(), store=tmp_path, **settings)
    assert str(again) == str(report), "the seconds, too, come from the store"


class Net(nn.Linear):
    """A network whose forward is told at birth, which no name and no shape shows."""

    def __init__(self, scale=1.0):
        super().__init__(4, 3)
        self.scale = scale

    def forward(self, x):
        return super().forward(x) * self.scale


def test_what_has_changed_never_reuses_a_fold(tmp_path):
    def run(net=Net, data=None, **settings):
        before = len(list(tmp_path.glob("*.json")))
        data = blobs() if data is None else data
        cross_validate({"net": net}, data, store=tmp_path, **QUICK | settings)
        return len(list(tmp_path.glob("*.json"))) - before

    assert run() == 3 and run() == 0
    assert run(repeats=2) == 3, "the first repetition is there already"
    assert run(functools.partial(Net, 2.0)) == 3
    assert run(lambda: Net().requires_grad_(False) and Net()) == 3, "other initial weights"
    changed = blobs()
    changed.tensors[0][7, 0] += 1e-4
    assert run(data=changed) == 3
    relabelled = blobs()
    relabelled.tensors[1][:2] = torch.tensor([1, 0])
    assert run(data=relabelled) == 3
    assert run(epochs=1) == run(batch_size=8) == run(seed=1) == run(folds=4) - 1 == 3
    for rate in (0.1, 0.2):
        assert run(optimizer=functools.partial(torch.optim.SGD, lr=rate)) == 3
    for strength in (0.1, 0.2):
        assert run(augment=lambda image, strength=strength: image + strength) == 3
    assert run(augment=lambda image, strength=0.2: image + strength) == 0


def test_a_damaged_fold_is_named_and_runs_again(tmp_path):
    report = cross_validate({"net": Net}, blobs(), store=tmp_path, **QUICK)
    file = next(tmp_path.glob("*.json"))
    file.write_text(file.read_text()[:50])
    with pytest.warns(UserWarning, match=f"{file.name} is damaged"):
        again = cross_validate({"net": Net}, blobs(), store=tmp_path, **QUICK)
    assert without_seconds(again) == without_seconds(report)


SLOW = """
import sys, time, torch
from torch import nn
from torch.utils.data import TensorDataset
from tlbook.selection import cross_validate

def work(store, pause=0.0):
    def build():
        time.sleep(pause)
        return nn.Linear(4, 3)

    images = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    nets = {"a": build, "b": lambda: nn.Sequential(build(), nn.ReLU())}
    settings = {"folds": 3, "repeats": 2, "epochs": 1, "precision": "float32"}
    return cross_validate(
        nets, TensorDataset(images, torch.arange(60) % 3), store=store, **settings
    )

if __name__ == "__main__":
    work(sys.argv[1], 0.4)
"""


def test_a_killed_run_goes_on_and_reports_what_an_uninterrupted_one_does(tmp_path):
    store = tmp_path / "store"
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    killed = subprocess.Popen([sys.executable, "-c", SLOW, str(store)], env=env)
    while len(list(store.glob("*.json"))) < 3:
        assert killed.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    kept = {file: file.stat().st_mtime_ns for file in store.glob("*.json")}
    assert 3 <= len(kept) < 12
    here = {"__name__": "here"}
    exec(SLOW, here)
    resumed, whole = here["work"](store), here["work"](tmp_path / "other")
    assert without_seconds(resumed) == without_seconds(whole)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept, "no fold ran twice"
    assert len(list(store.glob("*.json"))) == 12


def test_the_sizes_of_a_learning_curve_share_validation_and_lie_in_each_other():
    curve = learning_curve({"net": Net}, blobs(), [12, 30, 40], **QUICK)
    assert list(curve.reports) == [12, 30, 40]
    for size, report in curve.reports.items():
        assert {fold.train_examples for fold in report.folds} == {size}
        assert {fold.val_examples for fold in report.folds} == {20}
    whole = cross_validate({"net": Net}, blobs(), **QUICK)
    assert len(curve.rows()) == 3 and curve.rows()[0]["size"] == 12
    assert curve.scores("net")[40] == pytest.approx(whole.scores("net"), abs=0.15)
    assert curve.plot().axes[0].get_legend_handles_labels()[1] == ["net"]
    with pytest.raises(DataError, match="at most 40"):
        learning_curve({"net": Net}, blobs(), [41], **QUICK)


def test_halving_gives_the_better_candidates_more_epochs(tmp_path):
    def dull():
        model = nn.Linear(4, 3)
        return nn.Sequential(model.requires_grad_(False), nn.Linear(3, 3))

    nets = {"frozen": dull, "linear": CANDIDATES["linear"], "small": small}
    sgd = functools.partial(torch.optim.SGD, lr=0.1)
    settings = {"folds": 3, "batch_size": 8, "precision": "float32", "optimizer": sgd}
    report = successive_halving(nets, blobs(), epochs=3, store=tmp_path, **settings)
    epochs = {row["candidate"]: row["epochs"] for row in report.rows()}
    assert sorted(epochs.values()) == [1, 1, 3]
    assert report.best("highest") == max(epochs, key=epochs.get)
    assert len(list(tmp_path.glob("*.json"))) == 3 * 3 + 3
    short = cross_validate(nets, blobs(), epochs=1, **settings)
    assert report.best() == short.best("highest")


def test_copies_are_refused_or_kept_together():
    data = blobs()
    data.tensors[0][33] = data.tensors[0][4]
    assert find_duplicates(data) == [[4, 33]]
    settings = QUICK | {"folds": 10}  # so many that the two are in different folds
    with pytest.raises(DataError, match=r"items (4 and 33|33 and 4)"):
        cross_validate({"net": Net}, data, **settings)
    with pytest.warns(UserWarning, match="too high"):
        cross_validate({"net": Net}, data, duplicates="allow", **settings)
    report = cross_validate({"net": Net}, data, duplicates="together", **settings)
    assert report.rows()[0]["folds"] == 10


def test_numbers_that_make_no_sense_are_refused():
    for wrong in ({"epochs": 0}, {"repeats": 0}):
        with pytest.raises(SelectionError, match="expected 1 or more"):
            cross_validate({"net": Net}, blobs(), **QUICK | wrong)
    with pytest.raises(DataError, match="expected 2 or more"):
        cross_validate({"net": Net}, blobs(), **QUICK | {"folds": 1})
