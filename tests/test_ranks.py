"""Several processes train as one does: the same losses, each example once, nothing hangs."""

import ast
import json
import os
import subprocess
import sys
import textwrap
import time

import nbformat
import pytest
import torch

from tlbook.ranks import split_steps
from tools.chapters import ROOT

COMMON = """
import functools, json, os, sys
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from tlbook import fit

rank = int(os.environ.get("RANK", "0"))
generator = torch.Generator().manual_seed(0)
images = torch.randn(110, 1, 8, 8, generator=generator)
labels = torch.randint(3, (110,), generator=generator)
data = TensorDataset(images, labels)
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(),
                      nn.Linear(144, 3))
train = functools.partial(fit, model, epochs=2, batch_size=20, precision="float32", device="cpu",
                          optimizer=functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9))
"""


def run(folder, code, processes=2, *, timeout=120, **environment):
    script = folder / "script.py"
    script.write_text(textwrap.dedent(COMMON) + textwrap.dedent(code))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), str(script)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def result(folder, name):
    return json.loads((folder / name).read_text())


LOADER = "DataLoader(data, 20, shuffle=True, generator=torch.Generator().manual_seed(0))"


@pytest.mark.parametrize("source", ["data", LOADER], ids=["dataset", "loader"])
def test_two_processes_have_the_losses_of_one(tmp_path, source):
    code = f"""
    history = train({source}, data)
    columns = history.to_dict()
    if rank == 0:
        world = os.environ.get("WORLD_SIZE", "1")
        with open(world + ".json", "w") as file:
            json.dump([columns[k] for k in ("train_loss", "val_loss", "val_accuracy")], file)
        torch.save(model.state_dict(), world + ".pt")
    """
    for processes in (1, 2):
        finished = run(tmp_path, code, processes)
        assert finished.returncode == 0, finished.stderr
    one, two = (torch.tensor(result(tmp_path, f"{n}.json")) for n in (1, 2))
    torch.testing.assert_close(one, two, atol=1e-4, rtol=0)
    weights = [torch.load(tmp_path / f"{n}.pt") for n in (1, 2)]
    for key, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][key], tensor, atol=1e-4, rtol=0)


def test_every_example_is_used_once_an_epoch(tmp_path):
    code = """
    class Seen(Dataset):
        seen = []
        def __len__(self):
            return len(data)
        def __getitem__(self, index):
            self.seen.append(int(index))
            return data[index]

    seen = Seen()
    loader = DataLoader(seen, 20, shuffle=True)  # the order is drawn from the global state
    torch.manual_seed(rank)  # which differs
    seen.seen.clear()
    train(loader)
    with open(f"{rank}.json", "w") as file:
        json.dump(seen.seen, file)
    """
    finished = run(tmp_path, code)
    assert finished.returncode == 0, finished.stderr
    by_rank = [result(tmp_path, f"{rank}.json") for rank in (0, 1)]
    # `fit` looks at the first example once on every rank, to learn the number of outputs.
    seen = [index for indices in by_rank for index in indices[1:]]
    assert sorted(seen) == sorted([*range(110)] * 2)
    assert abs(len(by_rank[0]) - len(by_rank[1])) <= 2 * 6


def test_rank_zero_alone_writes_and_a_run_goes_on(tmp_path):
    code = """
    import tlbook.training
    save = tlbook.training.save_checkpoint
    def noted(*arguments):
        open(f"written.{rank}", "w").close()
        save(*arguments)
    tlbook.training.save_checkpoint = noted
    for epochs in (1, 2):
        history = train(data, data, epochs=epochs, checkpoint="run.pt")
    if rank == 0:
        with open("resumed.json", "w") as file:
            json.dump(history.to_dict()["train_loss"], file)
    """
    finished = run(tmp_path, code)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "written.0").exists() and not (tmp_path / "written.1").exists()
    assert len(result(tmp_path, "resumed.json")) == 2


def test_a_killed_rank_ends_the_job_and_says_so(tmp_path):
    code = """
    import signal, tlbook.loop
    steps = iter(range(3))
    def criterion(outputs, targets):
        if rank == 1 and next(steps, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return nn.functional.cross_entropy(outputs, targets)
    train(data, criterion=criterion)
    """
    start = time.perf_counter()
    finished = run(tmp_path, code, timeout=90)
    assert finished.returncode != 0 and time.perf_counter() - start < 60
    assert "lost another one" in finished.stderr or "SIGKILL" in finished.stderr


def test_too_few_examples_are_refused(tmp_path):
    finished = run(tmp_path, "train(TensorDataset(images[:3], labels[:3]))")
    assert finished.returncode != 0
    assert "3 examples for 2 processes: expected at least two for each" in finished.stderr


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("examples", [12, 13, 17, 23])
def test_shares_hold_each_example_once_and_two_at_least(examples, count):
    steps = torch.arange(examples).split(12)
    shares = [list(split_steps(steps, rank, count)) for rank in range(count)]
    together = torch.cat([index for share in shares for index in share])
    assert sorted(together.tolist()) == [*range(examples)]
    assert len({len(share) for share in shares}) == 1
    assert min(len(index) for share in shares for index in share) >= 2


def test_the_example_script_runs_with_two_processes(tmp_path):
    script = "examples/train_distributed.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    finished = subprocess.run(
        [*command, script, "--epochs", "1", "--batch-size", "256"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("epoch 1: loss") == 1


def test_the_chapter_shows_the_launch_file_as_it_is():
    chapter = nbformat.read(ROOT / "book/train/more_devices.ipynb", as_version=4)
    sources = [cell.source for cell in chapter.cells if cell.source.startswith("SLURM = ")]
    shown = [ast.literal_eval(source.removeprefix("SLURM = ")) for source in sources]
    assert shown == [(ROOT / "examples/train_distributed.slurm").read_text()]
