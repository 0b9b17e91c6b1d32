"""What happens to the two case studies where their photographs are not on the machine."""

import json
import re
import subprocess
import sys

import nbformat
import pytest
from jupyter_cache import get_cache
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from tools import chapters as book
from tools.execute import execute_all, without_photographs

STUDIES = [chapter for chapter in book.chapters() if chapter.stem in book.PHOTOGRAPHS]


@pytest.fixture
def without(monkeypatch, tmp_path):
    """A machine with no photographs: an empty folder in TLBOOK_DATA, and an empty cache."""
    monkeypatch.setenv("TLBOOK_DATA", str(tmp_path / "own"))
    monkeypatch.setenv("TLBOOK_CACHE", str(tmp_path / "cache"))


def tagged(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in cells if book.PHOTOGRAPHS_TAG in cell.metadata.get("tags", [])]


def test_the_list_names_the_chapters_that_load_photographs():
    names = "|".join(book.PHOTOGRAPHS.values())
    found = {}
    for chapter in book.chapters():
        cells = nbformat.read(chapter, as_version=4).cells
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        if loaded := set(re.findall(rf'load_dataset\(\s*"({names})"', code)):
            found[chapter.stem] = loaded
    assert found == {stem: {name} for stem, name in book.PHOTOGRAPHS.items()}


def test_these_two_chapters_alone_are_skipped_by_name(without, tmp_path):
    report = tmp_path / "report.xml"
    options = ["-q", "--nbval", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command = [sys.executable, "-m", "pytest", *options, *map(str, STUDIES)]
    done = subprocess.run(command, cwd=book.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    text = report.read_text()
    cells = [cell for c in STUDIES for cell in nbformat.read(c, 4).cells]
    count = sum(cell.cell_type == "code" for cell in cells)
    assert text.count("<skipped") == text.count("<testcase") == count > 0
    for stem, name in book.PHOTOGRAPHS.items():
        assert f"{stem}: the photographs {name} are not on this machine" in text
    assert all(book.missing_photographs(c) is None for c in set(book.chapters()) - set(STUDIES))


@pytest.mark.parametrize("chapter", STUDIES, ids=lambda path: path.stem)
def test_a_study_is_built_without_its_photographs(chapter, without):
    stored = nbformat.read(chapter, as_version=4)
    run = book.run(chapter, skipped_tag=book.PHOTOGRAPHS_TAG)  # raises if a tag is missing
    assert [cell.outputs for cell in tagged(run.notebook)] == [c.outputs for c in tagged(stored)]
    page = without_photographs(run.notebook, book.missing_photographs(chapter))
    assert book.PHOTOGRAPHS[chapter.stem] in tagged(page)[0].outputs[0].text
    assert "image/png" not in str([cell.outputs for cell in tagged(page)])
    drawn = [c for c in page.cells if "image/png" in str(c.get("outputs", ""))]
    assert drawn, "the pictures of stored results are drawn all the same"


@pytest.fixture
def small_book(tmp_path, without):
    """A book of one chapter, which fails if its cell with photographs is executed."""
    root = tmp_path / "book"
    (root / "tlbook" / "assets").mkdir(parents=True)
    (root / "tools").mkdir()
    for name in ("tlbook/__init__.py", "tools/chapters.py", "requirements.txt", "index.md"):
        (root / name).write_text("")
    (root / "_toc.yml").write_text("root: index\nparts:\n- chapters:\n  - file: ants_and_bees\n")
    needs = new_code_cell("raise SystemError('executed')", metadata={"tags": ["photographs"]})
    needs.outputs = [new_output("stream", text="stored\n")]
    notebook = new_notebook(cells=[needs, new_code_cell("6 * 7")])
    nbformat.write(notebook, root / "ants_and_bees.ipynb")
    return root


def cached_outputs(root):
    cache = get_cache(root / "_build" / ".jupyter_cache")
    notebook = cache.merge_match_into_file(root / "ants_and_bees.ipynb")[1]
    return [cell.outputs for cell in notebook.cells]


def test_the_build_shows_stored_outputs_until_photographs_come(small_book, tmp_path):
    execute_all(small_book)
    first, second = cached_outputs(small_book)
    assert "hymenoptera" in first[0].text and first[1].text == "stored\n"
    assert second[0].data["text/plain"] == "42"
    assert "without its photographs" in (small_book / "_build" / "execution_times.md").read_text()
    for place in ("train/ants", "train/bees", "val/ants", "val/bees"):
        folder = tmp_path / "own" / "hymenoptera_data" / place
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "one.jpg")
    with pytest.raises(SystemExit, match="1 of 1 chapters failed: ants_and_bees"):
        execute_all(small_book)


def test_no_photograph_gets_onto_a_page():
    picture = {"image/png": "...", "text/plain": "<Figure size 10x10 with 1 Axes>"}
    shown = new_code_cell("imshow(ants)", metadata={
        "tags": ["photographs"], "mystnb": {"image": {"alt": "an ant on a leaf"}}})  # fmt: skip
    plot = new_code_cell("plot(results)")
    shown.outputs, plot.outputs = ([new_output("display_data", dict(picture))] for _ in range(2))
    page = without_photographs(new_notebook(cells=[shown, plot]), None)
    assert page.cells[0].outputs[0].data == {
        "text/plain": "Picture, when you run it: an ant on a leaf"
    }
    assert json.dumps(page.cells[1].outputs[0].data) == json.dumps(picture)
