"""The tools behind the make targets."""

import shutil
import subprocess

import nbformat
from nbformat.v4 import new_output

from tools import chapters as book
from tools.affected import fingerprint, reachable_modules
from tools.new_chapter import skeleton
from tools.refresh import normalise, store
from tools.rules import SET_UP, problems, set_up_cell
from tools.set_repo import addresses, set_address


def notebook_of(*sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return nbformat.v4.new_notebook(cells=cells)


def test_refresh_stores_text_without_pictures_and_runs_from_the_top(tmp_path):
    path = tmp_path / "chapter.ipynb"
    draw = "import matplotlib.pyplot as plt\nfigure = plt.figure()\nplt.close()\nfigure"
    nbformat.write(notebook_of("print(6 * 7)", draw), path)
    run = store(path)
    stored = nbformat.read(path, as_version=4)
    assert [cell.execution_count for cell in stored.cells] == [1, 2]
    assert stored.cells[0].outputs[0].text == "42\n"
    assert list(stored.cells[1].outputs[0].data) == ["text/plain"]
    assert run.seconds > 0 and run.peak > 20 * 2**20


def test_pages_that_forked_workers_share_count_once(tmp_path):
    path = tmp_path / "chapter.ipynb"
    code = """
import multiprocessing, time
held = b"x" * 200 * 2**20
workers = [multiprocessing.get_context("fork").Process(target=time.sleep, args=(1,)) for _ in "ab"]
for worker in workers: worker.start()
for worker in workers: worker.join()"""
    nbformat.write(notebook_of(code), path)
    assert 200 * 2**20 < store(path).peak < 400 * 2**20


def test_refresh_drops_what_programs_leave_in_a_notebook():
    notebook = notebook_of("x = 1\n")
    notebook.metadata["kernelspec"] = {
        "name": "my-env",
        "display_name": "mine",
        "language": "python",
    }
    notebook.cells[0].metadata["execution"] = {"iopub.status.busy": "now"}
    notebook.cells[0].outputs = [new_output("stream", name="stderr", text="careful")]
    tidy = normalise(notebook)
    assert tidy.metadata.kernelspec.name == "python3"
    assert tidy.cells[0].metadata == {} and tidy.cells[0].outputs == []
    assert tidy.cells[0].source == "x = 1"


def test_errors_are_stored_without_paths(tmp_path):
    path = tmp_path / "chapter.ipynb"
    notebook = notebook_of("1 / 0")
    notebook.cells[0].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, path)
    output = book.run(path).notebook.cells[0].outputs[0]
    assert output.traceback == ["ZeroDivisionError: division by zero"]


def test_a_new_chapter_has_every_part_but_its_content(tmp_path):
    path = tmp_path / "hooks.ipynb"
    nbformat.write(skeleton("hooks", "Looking inside a run"), path)
    missing = " ".join(problems(path))
    for part in ["set-up cell", "title", "the sections", "exercises (tag"]:
        assert part not in missing
    assert "not run once" in missing and "no cell carries a lesson" in missing


def test_a_chapter_depends_on_the_modules_that_it_can_reach():
    reached = reachable_modules(book.ROOT / "book" / "train" / "loop.ipynb", book.ROOT)
    assert {"training", "loop", "batches", "runtime", "data", "check"} <= reached
    modules = reachable_modules(book.ROOT / "book" / "look" / "modules.ipynb", book.ROOT)
    assert "training" not in modules and {"runtime", "check"} <= modules


def test_a_changed_result_touches_only_the_chapters_that_read_it(tmp_path):
    for name in ("tlbook", "tools"):
        shutil.copytree(book.ROOT / name, tmp_path / name)
    shutil.copy(book.ROOT / "requirements.txt", tmp_path)
    chapters = [book.ROOT / "book" / name for name in ("train/fast.ipynb", "look/modules.ipynb")]
    before = [fingerprint(chapter, tmp_path) for chapter in chapters]
    with (tmp_path / "tlbook" / "assets" / "results" / "speed.json").open("a") as file:
        file.write("\n")
    after = [fingerprint(chapter, tmp_path) for chapter in chapters]
    assert (before[0] != after[0], before[1] != after[1]) == (True, False)


def test_the_address_changes_everywhere_at_once(tmp_path):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    old = addresses(book.ROOT)["_config.yml"]
    (tmp_path / "_config.yml").write_text(f"repository:\n  url: {old}\n")
    (tmp_path / "README.md").write_text(f"clone {old} or {old}.git, see https://github.com/a/b")
    nbformat.write(notebook_of(SET_UP.format(url=old)), tmp_path / "chapter.ipynb")
    new = "https://github.com/someone/surgery"
    changed = set_address(tmp_path, new)
    assert sorted(changed) == ["README.md", "_config.yml", "chapter.ipynb"]
    assert set(addresses(tmp_path).values()) == {new}
    assert "https://github.com/a/b" in (tmp_path / "README.md").read_text()


def test_the_set_up_cell_names_the_configured_address():
    assert addresses(book.ROOT)["_config.yml"] in set_up_cell()
