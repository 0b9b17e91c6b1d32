"""Splits on disk: what is planned, moved and put back, and that no kill loses a file."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tlbook.folders import DataError, image_folder
from tlbook.journal import JOURNAL
from tlbook.moving import carry_out, plan_split, undo

ROOT = Path(__file__).parents[1]
PARTS = {"train": 0.6, "val": 0.2, "test": 0.2}


@pytest.fixture
def tree(tmp_path) -> Path:
    """Ten ants, one of them in a nest, five bees, and what else gathers in such folders."""
    root = tmp_path / "insects"
    for i in range(10):
        write(root / "ants" / ("nest" if i == 9 else "") / f"{i}.jpg", f"ant {i}")
    for i in range(5):
        write(root / "bees" / f"{i}.PNG", f"bee {i}")
    write(root / "bees" / "notes.txt", "remember the honey")
    write(root / "bees" / ".ipynb_checkpoints" / "0.jpg", "hidden")
    write(root / ".DS_Store", "hidden")
    write(root / "cover.jpg", "beside the classes")
    (root / "ants" / "nest").chmod(0o750)
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def look(root: Path) -> dict[str, str | int]:
    """Every file with its text and every folder with its permissions, hidden ones too."""
    return {
        str(path.relative_to(root)): path.stat().st_mode if path.is_dir() else path.read_text()
        for path in root.rglob("*")
    }


def texts(root: Path) -> list[str]:
    """What all files but the journal hold: the same list means that none is lost."""
    found = (path for path in root.rglob("*") if path.is_file() and JOURNAL not in path.name)
    return sorted(path.read_text() for path in found)


def planned(root: Path, parts=PARTS, seed: int = 0):
    return plan_split(root, parts, seed=seed)


# --- the plan ----------------------------------------------------------------------------------


def test_the_plan_is_stratified_and_moves_nothing(tree):
    before = look(tree)
    plan = planned(tree)
    assert look(tree) == before
    rows = [line.split() for line in str(plan).splitlines()]
    assert rows == [
        ["class", "train", "val", "test"],
        ["ants", "6", "2", "2"],
        ["bees", "3", "1", "1"],
        ["all", "9", "3", "3"],
    ]
    for source, target in plan.moves:
        part, _, rest = target.partition("/")
        assert part in PARTS and rest == source
    assert len({source for source, _ in plan.moves}) == 15


def test_what_stays_is_listed(tree):
    assert planned(tree).left() == [
        ".DS_Store",
        "bees/.ipynb_checkpoints",
        "bees/notes.txt",
        "cover.jpg",
    ]


def test_the_seed_alone_decides(tree):
    assert planned(tree) == planned(tree)
    assert planned(tree).moves != planned(tree, seed=1).moves


def test_what_the_parts_leave_over_stays(tree):
    plan = planned(tree, {"few": 0.4})
    assert len(plan.moves) == 6 and "ants/nest/9.jpg" in {*plan.left(), *dict(plan.moves)}
    assert carry_out(plan) == 6
    assert len(plan.left()) == 9 + 4
    assert len(planned(tree, {"few": 0.4}).left()) == 9 + 4


# --- there and back ----------------------------------------------------------------------------


def test_a_split_and_its_undoing(tree):
    before = look(tree)
    plan = planned(tree)
    assert carry_out(plan) == 15
    after = look(tree)
    for source, target in plan.moves:
        assert source not in after and after[target] == before[source]
    assert "ants" not in after and "bees/notes.txt" in after
    assert image_folder(tree / "val", verify=False).classes == ["ants", "bees"]
    undone = undo(tree)
    assert (undone.moved, undone.missing, undone.kept) == (15, [], [])
    assert look(tree) == before


def test_the_folder_may_be_renamed_before_the_undoing(tree):
    before = look(tree)
    carry_out(planned(tree))
    moved = tree.rename(tree.with_name("renamed"))
    undo(moved)
    assert look(moved) == before


def test_a_second_run_has_nothing_to_do(tree):
    carry_out(planned(tree))
    after = look(tree)
    assert carry_out(planned(tree)) == 0 and look(tree) == after


def test_another_split_is_refused_until_the_first_is_undone(tree):
    other = planned(tree, seed=1)
    carry_out(planned(tree))
    after = look(tree)
    with pytest.raises(DataError, match=r"with seed 0, not into .* with seed 1: undo that first"):
        planned(tree, seed=1)
    with pytest.raises(DataError, match="undo that first"):
        planned(tree, {"train": 0.8, "val": 0.2})
    with pytest.raises(DataError, match="another split was begun"):
        carry_out(other)
    assert look(tree) == after
    undo(tree)
    assert carry_out(planned(tree, seed=1)) == 15


def test_undo_without_a_split_is_refused(tree):
    with pytest.raises(DataError, match="was not split by tlbook"):
        undo(tree)


def test_undo_keeps_other_files_and_names_missing_ones(tree):
    before = look(tree)
    plan = planned(tree)
    carry_out(plan)
    source, target = plan.moves[0]
    (tree / target).unlink()
    write(tree / "train" / "model.pt", "weights")
    undone = undo(tree)
    assert (undone.moved, undone.missing, undone.kept) == (14, [target], ["train"])
    after = look(tree)
    assert after.pop("train/model.pt") == "weights" and after.pop("train")
    assert after | {source: before[source]} == before


# --- refused before anything moves -------------------------------------------------------------


def refused(tree: Path, action, *words: str) -> None:
    before = look(tree)
    with pytest.raises(DataError) as caught:
        action()
    for word in words:
        assert word in str(caught.value)
    assert look(tree) == before


def test_a_taken_target_is_never_overwritten(tree):
    plan = planned(tree)
    target = plan.moves[3][1]
    write(tree / target, "somebody else's")
    refused(tree, lambda: carry_out(plan), f"{target}: already there", "nothing was moved")
    refused(tree, lambda: planned(tree), f"already holds {target.partition('/')[0]}")


def test_a_dangling_link_is_a_taken_target_too(tree):
    plan = planned(tree)
    (tree / plan.moves[0][1]).parent.mkdir(parents=True)
    (tree / plan.moves[0][1]).symlink_to("nowhere")
    with pytest.raises(DataError, match="already there"):
        carry_out(plan)
    assert (tree / plan.moves[0][1]).is_symlink() and not (tree / JOURNAL).exists()


def test_a_vanished_file_is_named(tree):
    plan = planned(tree)
    for source, _ in plan.moves[:2]:
        (tree / source).unlink()
    words = [f"{source}: vanished" for source, _ in plan.moves[:2]]
    refused(tree, lambda: carry_out(plan), *words, "nothing was moved")


def test_undo_never_overwrites_either(tree):
    plan = planned(tree)
    carry_out(plan)
    write(tree / plan.moves[0][0], "a new ant")
    refused(tree, lambda: undo(tree), f"{plan.moves[0][0]}: in its old place again")


def test_a_class_of_fewer_images_than_parts_is_named(tree):
    for i in range(2, 5):
        (tree / "bees" / f"{i}.PNG").unlink()
    refused(tree, lambda: planned(tree), "2 of 'bees'")


def test_an_empty_class_is_named(tree):
    write(tree / "wasps" / "a.gif", "of a kind that is left out")
    refused(tree, lambda: planned(tree), "no image in wasps")


def test_no_folder_and_no_classes(tree):
    with pytest.raises(DataError, match="there is no folder"):
        planned(tree / "moths")
    with pytest.raises(DataError, match="expected one folder of images per class"):
        planned(tree / "ants" / "nest")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp", ".hidden", "v" * 256])
def test_a_part_is_a_folder_inside(tree, name):
    refused(tree, lambda: planned(tree, {"train": 0.5, name: 0.5}), "cannot name parts", repr(name))


def test_a_part_must_not_be_called_like_a_class(tree):
    refused(tree, lambda: planned(tree, {"ants": 0.5, "rest": 0.5}), "already holds ants")


@pytest.mark.parametrize("parts", [{}, {"train": 0.8, "val": 0.3}, {"train": 0.5, "val": 3}])
def test_wrong_shares_are_refused(tree, parts):
    refused(tree, lambda: planned(tree, parts), "expected fractions")


def test_links_are_refused_by_name(tree):
    (tree / "ants" / "10.jpg").symlink_to("0.jpg")
    (tree / "wasps").symlink_to("bees")
    words = ("ants/10.jpg: a link", "wasps: a link")
    refused(tree, lambda: planned(tree), *words)


def test_a_strangers_journal_cannot_reach_outside(tree):
    outside = tree.parent / "outside.jpg"
    for pair in (["../outside.jpg", "train/a.jpg"], [str(outside), "train/a.jpg"]):
        write(tree / "train" / "a.jpg", "planted")
        content = {"folder": None, "parts": PARTS, "seed": 0, "moves": [pair], "modes": {}}
        (tree / JOURNAL).write_text(json.dumps(content))
        refused(tree, lambda: undo(tree), "outside of")
        refused(tree, lambda: planned(tree), "outside of")
        assert not outside.exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"moves": 3}', '{"moves": [["a"]]}'])
def test_a_damaged_journal_is_named(tree, content):
    (tree / JOURNAL).write_text(content)
    refused(tree, lambda: undo(tree), f"{JOURNAL} is damaged")


# --- cut short ---------------------------------------------------------------------------------


def killed_at(event: str, count: int, action) -> None:
    """Run `action` in a process that is killed (-9) as it begins its count-th such operation."""
    child = os.fork()
    if child == 0:
        seen = 0

        def watch(name: str, _: tuple) -> None:
            nonlocal seen
            seen += name == event
            if name == event and seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(watch)
            action()
        finally:
            os._exit(1)  # not killed: the child must not go on with the tests
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


# The first rename gives the journal its name, the others move files.
MOMENTS = [("os.rename", n) for n in (1, 2, 3, 9, 16)] + [("os.mkdir", 2), ("os.rmdir", 1)]
BACK = [("os.mkdir", 2), *(("os.rename", n) for n in (1, 8)), ("os.rmdir", 1), ("os.rmdir", 5)]
BACK += [("os.remove", 1), ("os.chmod", 1)]


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_then_finished_then_undone(tree, moment):
    before, all_texts = look(tree), texts(tree)
    killed_at(*moment, lambda: carry_out(planned(tree)))
    assert texts(tree) == all_texts
    plan = planned(tree)
    carry_out(plan)
    after = look(tree)
    assert [after[target] for _, target in plan.moves] == [before[s] for s, _ in plan.moves]
    assert "ants" not in after
    undo(tree)
    assert look(tree) == before


@pytest.mark.parametrize("moment", MOMENTS[1:])
def test_killed_then_undone(tree, moment):
    before = look(tree)
    killed_at(*moment, lambda: carry_out(planned(tree)))
    undo(tree)
    assert look(tree) == before


@pytest.mark.parametrize("moment", BACK)
@pytest.mark.parametrize("onward", [True, False])
def test_killed_while_it_is_undone(tree, moment, onward):
    before, all_texts = look(tree), texts(tree)
    carry_out(planned(tree))
    after = look(tree)
    killed_at(*moment, lambda: undo(tree))
    assert texts(tree) == all_texts
    if onward:
        carry_out(planned(tree))
        assert look(tree) == after
    undo(tree)
    assert look(tree) == before


def test_killed_from_outside_in_the_middle(tmp_path):
    count = 3000
    for i in range(count):
        write(tmp_path / ("ants", "bees")[i % 2] / f"{i}.jpg", str(i))
    before, all_texts = look(tmp_path), texts(tmp_path)
    parts = ["--parts", "train=0.5", "val=0.5"]
    command = [sys.executable, "-m", "tlbook", "split", str(tmp_path)]
    running = subprocess.Popen([*command, *parts], cwd=ROOT)
    first = tmp_path / "train"
    while not first.exists() and running.poll() is None:
        time.sleep(0.001)
    time.sleep(0.01)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    moved = sum(path.suffix == ".jpg" for part in ("train", "val")
                for path in (tmp_path / part).rglob("*"))  # fmt: skip
    assert 0 < moved < count and texts(tmp_path) == all_texts
    again = subprocess.run([*command, *parts], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"{count - moved} files moved" in again.stdout
    assert texts(tmp_path) == all_texts and not (tmp_path / "ants").exists()
    undo(tmp_path)
    assert look(tmp_path) == before


def test_a_file_that_vanishes_after_a_kill_does_not_keep_the_others(tree):
    before = look(tree)
    killed_at("os.rename", 5, lambda: carry_out(planned(tree)))
    source, target = planned(tree).moves[-1]
    (tree / source).unlink()
    refused(tree, lambda: carry_out(planned(tree)), f"{source}: vanished", "undo brings the rest")
    assert undo(tree).missing == [target]
    assert look(tree) | {source: before[source]} == before


def test_a_disk_that_refuses_a_move_is_reported(tree):
    before, plan = look(tree), planned(tree)
    write(tree / "val", "a file where a folder should be")
    with pytest.raises(DataError, match=r"stopped by the disk .*No file is lost"):
        carry_out(plan)
    assert 0 < len(list(tree.glob("train/*/*.*"))) < 9
    assert undo(tree).kept == ["val"]
    (tree / "val").unlink()
    assert look(tree) == before
