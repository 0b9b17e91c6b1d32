"""The gates are gates: every fault that is planted into a copy turns its own gate red."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_output

from tools import chapters as book
from tools.check_site import problems as site_problems
from tools.refresh import normalise
from tools.rules import problems

ROOT = book.ROOT
CHAPTER = ROOT / "book" / "look" / "modules.ipynb"


def code(notebook, number):
    return [cell for cell in notebook.cells if cell.cell_type == "code"][number]


def tagged(notebook, tag):
    return next(c for c in notebook.cells if tag in c.metadata.get("tags", []))


def text_cell(notebook, phrase):
    return next(c for c in notebook.cells if c.cell_type == "markdown" and phrase in c.source)


def add(notebook, source, outputs=(), tags=(), position=None):
    """Add a cell that is otherwise in order: run, with the count that its place gives it."""
    cell = new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)})
    cells = notebook.cells
    cells.insert(len(cells) - 2 if position is None else position, cell)
    for count, found in enumerate((c for c in cells if c.cell_type == "code"), 1):
        found.execution_count = count


def set_source(cell, pattern, replacement):
    cell.source, count = re.subn(pattern, replacement, cell.source, flags=re.DOTALL)
    assert count, f"{pattern} is not in {cell.source}"


def a_picture():
    return new_output("display_data", data={"image/png": "iVBORw0KGgo=", "text/plain": "x"})


def a_figure():
    return new_output("execute_result", data={"text/plain": "<Figure size 640x480 with 1 Axes>"})


def printed(text, name="stdout"):
    return new_output("stream", name=name, text=text)


ERROR = new_output("error", ename="ValueError", evalue="no", traceback=["ValueError: no"])

STATIC = {
    "a cell that was not run": (
        lambda nb: code(nb, 3).update(execution_count=None), "not run once from top to bottom"),
    "cells run out of order": (
        lambda nb: code(nb, 3).update(execution_count=9), "not run once from top to bottom"),
    "a set-up cell that differs": (
        lambda nb: set_source(code(nb, 0), r"seed_everything\(0\)", "seed_everything(1)"),
        "set-up cell differs"),
    "a set-up cell that is shown": (
        lambda nb: code(nb, 0).metadata.update(tags=[]), "lacks the tag hide-cell"),
    "an over-long cell": (
        lambda nb: add(nb, "\n".join(["x = 1"] * 21)), "too long: 21 lines"),
    "a stored picture": (
        lambda nb: add(nb, "x", [a_picture()]), "stores a picture"),
    "an attached picture": (
        lambda nb: nb.cells[0].update(attachments={"a.png": {}}), "attached picture"),
    "a star import": (
        lambda nb: add(nb, "from torch import *"), "star import"),
    "a shell line": (
        lambda nb: add(nb, "!ls"), "magic or shell line"),
    "a skipped cell": (
        lambda nb: add(nb, "x = 1", tags=["nbval-skip"]), "skipped by nbval"),
    "photographs that the build would need": (
        lambda nb: add(nb, 'load_dataset("hymenoptera")'), "without the tag photographs"),
    "an error nobody announced": (
        lambda nb: add(nb, "int('x')", [ERROR]), "tagged raises-exception False"),
    "an announced error that does not come": (
        lambda nb: add(nb, "x = 1", tags=["raises-exception"]), "tagged raises-exception True"),
    "a stored warning": (
        lambda nb: add(nb, "x = 1", [printed("careful", "stderr")]), "to stderr"),
    "a path of one machine": (
        lambda nb: add(nb, "x", [printed("/" + "home/me/x.pt")]), "path of one machine"),
    "too few compared outputs": (
        lambda nb: [c.metadata.setdefault("tags", []).append("nbval-ignore-output")
                    for c in nb.cells if c.cell_type == "code"], "outputs are compared"),
    "an ignored output without an assert": (
        lambda nb: add(nb, "1.3", [printed("1.3")], tags=["nbval-ignore-output"], position=-1),
        "no assert follows"),
    "a figure without a description": (
        lambda nb: add(nb, "figure", [a_figure()]), "without alt text"),
    "a missing opening line": (
        lambda nb: set_source(nb.cells[0], r"\*\*Before you start\*\*", "Before"),
        "lacks **Before you start**"),
    "a missing section": (
        lambda nb: set_source(text_cell(nb, "## What to remember"), "## What to", "## Not to"),
        "expected the sections"),
    "no citation": (
        lambda nb: set_source(nb.cells[-1], r"\{cite", "{site"), "cites nothing"),
    "no lesson id": (
        lambda nb: [c.metadata.pop("lesson", None) for c in nb.cells], "no cell carries a lesson"),
    "an unknown lesson id": (
        lambda nb: code(nb, 1).metadata.update(lesson=["A99"]), "no lesson A99"),
    "an exercise without a solution": (
        lambda nb: nb.cells.remove(tagged(nb, "solution")), "one solution"),
    "a solution that shows": (
        lambda nb: tagged(nb, "solution").metadata.update(tags=["solution"]), "is not hidden"),
    "an answer left in": (
        lambda nb: set_source(tagged(nb, "exercise"), r"answer = \.\.\.", "answer = 1"),
        "is not empty"),
    "a stored solution that fails": (
        lambda nb: tagged(nb, "solution").update(outputs=[printed("Not yet: no.")]),
        "does not pass its own check"),
    "too few quiz questions": (
        lambda nb: set_source(text_cell(nb, "## Quiz"), r"\*\*2\. .*", ""), "quiz questions"),
    "an unexplained choice": (
        lambda nb: set_source(text_cell(nb, "## Quiz"), r"</summary>.*?</details>",
                              "</summary>\n\nNo.\n\n</details>"), "is not explained"),
}  # fmt: skip


@pytest.mark.parametrize("fault", STATIC)
def test_a_fault_that_can_be_seen_is_named(fault, tmp_path):
    plant, message = STATIC[fault]
    notebook = nbformat.read(CHAPTER, as_version=4)
    plant(notebook)
    copy = tmp_path / CHAPTER.name
    nbformat.write(notebook, copy)
    found = problems(copy)
    assert any(message in problem for problem in found), found


def test_a_copy_without_a_fault_is_green(tmp_path):
    shutil.copy(CHAPTER, tmp_path)
    assert problems(tmp_path / CHAPTER.name) == []


def test_a_page_that_only_the_table_of_contents_knows_is_named(tmp_path):
    (tmp_path / "_toc.yml").write_text("root: book/index\nparts: []\n")
    with pytest.raises(SystemExit, match="book/index, but neither"):
        book.pages(tmp_path)


def test_a_chapter_missing_from_the_table_of_contents_is_named(tmp_path):
    shutil.copytree(ROOT / "book", tmp_path / "book")
    toc = (ROOT / "_toc.yml").read_text()
    (tmp_path / "_toc.yml").write_text(toc.replace("      - file: book/train/loop\n", ""))
    assert book.unlisted(tmp_path) == ["book/train/loop.ipynb"]


def shortened():
    """The chapter's opening and first cells: what runs is real, and the run is short."""
    notebook = nbformat.read(CHAPTER, as_version=4)
    last = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"][1]
    notebook.cells = notebook.cells[: last + 1]
    return notebook


RUN = {
    "no fault": (lambda nb: None, None),
    "a changed stored number": (
        lambda nb: add(nb, "print(6 * 7)", [printed("41\n")], position=9), "Cell outputs differ"),
    "a missing output": (
        lambda nb: add(nb, "print(6 * 7)", [], position=9), "Unexpected output fields"),
    "an output that no longer comes": (
        lambda nb: add(nb, "x = 42", [printed("42\n")], position=9), "Missing output fields"),
    "a cell that raises": (
        lambda nb: add(nb, "torch.zeros(2) @ torch.zeros(3)", position=9),
        "Cell execution caused an exception"),
    "a warning that is not stored": (
        lambda nb: add(nb, "import warnings; warnings.warn('careful')", position=9), "stderr"),
    "a wrong exercise solution": (
        lambda nb: add(nb, "from tlbook import check\ncheck.modules_1(-1)",
                       [printed("Passed.\n")], position=9), "Not yet"),
    "a kernel that dies": (
        lambda nb: add(nb, "import os; os.kill(os.getpid(), 9)", position=9), "the kernel died"),
}  # fmt: skip


@pytest.fixture(scope="module")
def nbval_run(tmp_path_factory):
    """One pytest run over a copy for each fault: its report, and the seconds it took."""
    folder = tmp_path_factory.mktemp("gates")
    shutil.copy(ROOT / "conftest.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --nbval-cell-timeout=120\n")
    for number, (plant, _) in enumerate(RUN.values()):
        notebook = shortened()
        plant(notebook)
        nbformat.write(notebook, folder / f"fault_{number}.ipynb")
    start = time.monotonic()
    command = [sys.executable, "-m", "pytest", "--nbval", "--color=no", "-rA", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # conftest.py asks the book's tools
    run = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    return run.stdout, time.monotonic() - start


@pytest.mark.parametrize("fault", RUN)
def test_a_fault_that_shows_when_run_is_red(fault, nbval_run):
    report, _ = nbval_run
    name = f"fault_{list(RUN).index(fault)}.ipynb"
    red = re.findall(rf"^FAILED {name}::\S+ \d+", report, re.MULTILINE)
    message = RUN[fault][1]
    if message is None:
        assert not red, report
    else:
        section = report.partition(f"{name}::Cell")[2]
        assert len(red) == 1, f"{name}: {red}\n{report[-3000:]}"
        assert message in report and section


def test_a_dead_kernel_is_noticed_at_once(nbval_run):
    """All these runs together take less than the 60 seconds allowed for a dead kernel alone."""
    assert nbval_run[1] < 8 * 15 and "the kernel died" in nbval_run[0]


@pytest.fixture
def small_book(tmp_path):
    """A book of one page and one short chapter, with this book's settings and tools."""
    for name in ["_config.yml", "references.bib", "requirements.txt"]:
        shutil.copy(ROOT / name, tmp_path)
    for name in ["tools", "tlbook", "book/_static"]:
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nparts:\n"
        "  - caption: Look\n    chapters:\n      - file: book/look/modules\n"
    )
    (tmp_path / "book" / "index.md").write_text("# A book\n")
    (tmp_path / "book" / "look").mkdir()
    return tmp_path


def build(folder):
    tool = Path(sys.executable).with_name("jupyter-book")
    command = [str(tool), "build", ".", "-W", "-n", "--keep-going"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def execute(folder):
    return subprocess.run(
        [sys.executable, "-m", "tools.execute"], cwd=folder, capture_output=True, text=True
    )


def write_chapter(folder, plant=lambda notebook: None):
    notebook = nbformat.v4.new_notebook(cells=[new_code_cell("print(6 * 7)")])
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell("# A chapter"))
    plant(notebook)
    nbformat.write(normalise(notebook), folder / "book" / "look" / "modules.ipynb")


def test_a_failing_cell_fails_the_build(small_book):
    write_chapter(small_book, lambda nb: add(nb, "1 / 0", position=1))
    executed = execute(small_book)
    assert executed.returncode != 0 and "ZeroDivisionError" in executed.stderr
    built = build(small_book)
    assert built.returncode != 0 and "ZeroDivisionError" in built.stdout + built.stderr


def test_the_build_runs_what_changed_and_only_that(small_book):
    write_chapter(small_book)
    assert "modules.ipynb ... " in execute(small_book).stdout
    assert execute(small_book).stdout == ""
    write_chapter(small_book, lambda nb: add(nb, "from tlbook import get_device", position=3))
    assert "modules.ipynb ... " in execute(small_book).stdout
    used, unused = small_book / "tlbook" / "runtime.py", small_book / "tlbook" / "display.py"
    unused.write_text(unused.read_text() + "\n# changed\n")
    assert execute(small_book).stdout == ""
    used.write_text(used.read_text() + "\n# changed\n")
    assert "modules.ipynb ... " in execute(small_book).stdout
    requirements = small_book / "requirements.txt"
    requirements.write_text(requirements.read_text() + "# changed\n")
    assert "modules.ipynb ... " in execute(small_book).stdout


def test_a_chapter_that_ran_again_is_rendered_again(small_book):
    write_chapter(small_book)
    runtime = small_book / "tlbook" / "runtime.py"
    page = small_book / "_build" / "html" / "book" / "look" / "modules.html"
    chapter = "from pathlib import Path\nimport tlbook.runtime\nprint(Path('answer').read_text())"
    write_chapter(small_book, lambda nb: add(nb, chapter, position=2))
    for answer in ["forty-one", "forty-two"]:
        (small_book / "book" / "look" / "answer").write_text(answer)
        runtime.write_text(runtime.read_text() + "\n# changed\n")
        assert "modules.ipynb ... " in execute(small_book).stdout
        built = build(small_book)
        assert built.returncode == 0 and "Using cached notebook" in built.stdout
        assert answer in page.read_text()


def test_a_dead_link_and_a_warning_fail_the_build(small_book):
    write_chapter(small_book)
    index = small_book / "book" / "index.md"
    index.write_text("# A book\n\n{term}`nothing`\n")
    built = build(small_book)
    assert built.returncode != 0 and "term not in glossary" in built.stdout + built.stderr


SITE = {
    "a link to nowhere": ('<a href="gone.html">x</a>', "gone.html, which is not there"),
    "a link to no place on a page": ('<a href="#gone">x</a>', "has no such place"),
    "a script from elsewhere": ('<script src="https://cdn.example/x.js"></script>', "another site"),
    "a style from elsewhere": (
        '<link rel="stylesheet" href="//cdn.example/x.css">', "from another site"),
    "a module imported from elsewhere": (
        '<script>import("https://cdn.example/x.js")</script>', "from another site"),
    "a missing picture": ('<img src="gone.png">', "gone.png, which is not there"),
}  # fmt: skip


@pytest.mark.parametrize("fault", SITE)
def test_a_fault_of_the_site_is_named(fault, tmp_path):
    html, message = SITE[fault]
    page = '<p id="here"></p><a href="#here">x</a><a href="https://example.org">y</a>'
    (tmp_path / "index.html").write_text(page)
    assert list(site_problems(tmp_path)) == []
    (tmp_path / "index.html").write_text(page + html)
    assert any(message in problem for problem in site_problems(tmp_path))


def run_module(*arguments):
    return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True)


MISSPELT = "t" + "eh"  # in one piece it would be found in this file


def test_an_unformatted_or_misspelt_line_is_found(tmp_path):
    copy = tmp_path / "chapter.ipynb"
    notebook = json.loads(CHAPTER.read_text())
    notebook["cells"][-1] = {**notebook["cells"][-1], "source": [MISSPELT]}
    copy.write_text(json.dumps(notebook))
    spelling = run_module("codespell_lib", str(copy))
    assert spelling.returncode != 0 and MISSPELT in spelling.stdout
    bad = tmp_path / "bad.py"
    bad.write_text("import os\nx=1\n")
    lint = run_module("ruff", "check", "--config", str(ROOT / "pyproject.toml"), str(bad))
    assert lint.returncode != 0 and "F401" in lint.stdout
    layout = run_module(
        "ruff", "format", "--check", "--config", str(ROOT / "pyproject.toml"), str(bad)
    )
    assert layout.returncode != 0
