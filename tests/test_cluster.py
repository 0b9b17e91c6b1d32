"""A selection on a real Dask cluster: the same report, the data once, and nothing lost."""

import logging
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import asdict
from pathlib import Path

import cloudpickle
import dask
import joblib
import pytest
import torch
from distributed import Client, KilledWorker, LocalCluster
from distributed.utils import get_mp_context
from torch import nn
from torch.utils.data import TensorDataset

from tlbook.cluster import finished
from tlbook.selection import cross_validate
from tools.chapters import ROOT

QUICK = {"folds": 3, "repeats": 2, "epochs": 1, "precision": "float32"}
EXAMPLE = ROOT / "examples" / "select_on_cluster.py"


cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers need not find this file


@pytest.fixture(scope="module")
def client():
    quiet = {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
    # Workers, and those that replace killed ones, are forked from a process that knows PyTorch.
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context().set_forkserver_preload(["distributed", "tlbook.folds"])
        cluster = LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", **quiet)
        with cluster, Client(cluster) as client:
            yield client


def data():
    images = torch.rand(600, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return TensorDataset(images, torch.arange(600) % 3)


def networks(log=Path(os.devnull), pause=0.1):
    """Return candidates that note the process they are built in, and take their time."""

    def built(*layers):
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(pause)
        return nn.Sequential(nn.Flatten(), *layers)

    return {
        "linear": lambda: built(nn.Linear(784, 3)),
        "dropout": lambda: built(nn.Dropout(0.2), nn.Linear(784, 3)),
    }


def without_seconds(report):
    folds = [asdict(fold) for fold in report.folds]
    for fold in folds:
        del fold["seconds"]
        for row in fold["rows"]:
            del row["seconds"], row["examples_per_second"]
    return folds


@pytest.fixture(scope="module")
def local():
    return cross_validate(networks(pause=0), data(), **QUICK)


def count_received_bytes(dask_worker):
    """Make a worker count every byte that it reads from any connection."""
    from tornado.iostream import IOStream

    plain = IOStream.read_from_fd
    dask_worker.received = 0

    def counting(stream, buffer):
        read = plain(stream, buffer)
        dask_worker.received += read or 0
        return read

    IOStream.read_from_fd = counting


def test_the_report_is_the_local_one_and_no_fold_brings_its_data(client, local):
    count = {"function": count_received_bytes}["function"]
    client.run(count)
    with joblib.parallel_config("dask"):
        report = cross_validate(networks(), data(), **QUICK)
    assert without_seconds(report) == without_seconds(local)
    assert len(report.folds) == 12
    size = data().tensors[0].nbytes
    received = client.run(lambda dask_worker: dask_worker.received)
    assert len(received) == 2
    for worker, count in received.items():
        # On a busy machine a worker reads the data twice at times; once a fold would be 6 times.
        assert size < count < 2.5 * size, f"{worker} read {count:,} bytes, the data have {size:,}"


@pytest.mark.parametrize("killed", [1, 2])
def test_killed_workers_take_no_fold_with_them(client, local, tmp_path, killed):
    client.wait_for_workers(2, timeout=60)
    store, log = tmp_path / "store", tmp_path / "log"
    victims = list(client.run(os.getpid).values())[:killed]
    kept = {}

    def kill():
        while len(kept) < 3:
            time.sleep(0.02)
            kept.update({file: file.stat().st_mtime_ns for file in store.glob("*.json")})
        for pid in victims:
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with joblib.parallel_config("dask"):
        report = cross_validate(networks(log, pause=0.3), data(), store=store, **QUICK)
    killer.join(timeout=5)
    assert 3 <= len(kept) < 12, "they were killed in the middle"
    assert not set(victims) & set(client.run(os.getpid).values())
    assert without_seconds(report) == without_seconds(local)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept, "no kept fold ran twice"
    there = [pid for pid in log.read_text().split() if int(pid) != os.getpid()]
    assert 12 <= len(there) <= 12 + 2 * killed

    with joblib.parallel_config("dask"):
        again = cross_validate(networks(log, pause=0), data(), store=store, **QUICK)
    assert str(again) == str(report)
    assert [pid for pid in log.read_text().split() if int(pid) != os.getpid()] == there


def test_a_cluster_of_one_worker_gives_the_same(local):
    one = {"processes": False, "n_workers": 1, "threads_per_worker": 1}
    with (
        LocalCluster(**one, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster),
        joblib.parallel_config("dask"),
    ):
        report = cross_validate(networks(pause=0), data(), **QUICK)
    assert without_seconds(report) == without_seconds(local)


def test_a_fold_that_kills_every_worker_ends_the_call(client):
    def deadly():
        if os.getpid() != here:
            os._exit(1)
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 3))

    here, scheduler = os.getpid(), client.cluster.scheduler
    client.wait_for_workers(2, timeout=60)
    usual, scheduler.allowed_failures = scheduler.allowed_failures, 0  # one death is enough
    with joblib.parallel_config("dask"), pytest.raises(KilledWorker):
        cross_validate({"deadly": deadly}, data(), **QUICK)
    scheduler.allowed_failures = usual
    client.restart(timeout=60)  # the other worker may be dying still


def test_a_backend_that_returns_nothing_before_the_end_gets_a_few_tasks_at_a_time(tmp_path):
    tasks = [joblib.delayed(Path.touch)(tmp_path / str(number)) for number in range(5)]
    with joblib.parallel_config("multiprocessing", n_jobs=2):
        results = finished(tasks, None)
        next(results)
        assert len(list(tmp_path.iterdir())) == 2
        assert len(list(results)) == 4 == len(list(tmp_path.iterdir())) - 1


def test_workers_that_grow_are_replaced_without_a_word():
    grow = "import sys, time; vars(sys).setdefault('kept', []).append(b'.' * 4 * 10**8)"
    with warnings.catch_warnings(record=True) as seen, joblib.parallel_config("loky"):
        warnings.simplefilter("always")
        tasks = [joblib.delayed(exec)(f"{grow}; time.sleep(1.1)")] * 6
        assert list(finished(tasks, n_jobs=2)) == [None] * 6
    assert not seen


def test_the_example_runs_and_goes_on_with_another_cluster(client, tmp_path, capsys):
    few = ["--store", str(tmp_path), "--per-class", "6", "--folds", "2", "--epochs", "1"]
    address = client.scheduler.address
    run = subprocess.run(
        [sys.executable, EXAMPLE, "--scheduler", address, *few],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    first, *printed = run.stdout.splitlines()
    assert first == f"2 workers at {address}"
    assert [line.split()[0] for line in printed] == [
        "candidate", "linear", "SlimVGG", "HybridNet", "take",
    ]  # fmt: skip
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.json")}
    assert len(kept) == 3 * 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(EXAMPLE), *few, "--repeats", "2"])
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    first, *printed = capsys.readouterr().out.splitlines()
    assert first.startswith("2 workers at tcp://127.0.0.1:") and address not in first
    assert len(printed) == 5 and len(list(tmp_path.glob("*.json"))) == 2 * len(kept)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


def test_the_example_says_what_is_missing():
    connected = runpy.run_path(str(EXAMPLE))["connected"]
    with (
        pytest.raises(SystemExit, match=r"no scheduler at tcp://127.0.0.1:9: .*`dask scheduler`"),
        connected("tcp://127.0.0.1:9", workers=0, timeout=0.5),
    ):
        pass
    with (
        pytest.raises(SystemExit, match="no scheduler at HOST: missing port number"),
        connected("HOST", workers=0, timeout=0.5),
    ):
        pass
    with (
        pytest.raises(SystemExit, match=r"has no worker after 0.5 s: .*`dask worker tcp://127"),
        connected(None, workers=0, timeout=0.5),
    ):
        pass
