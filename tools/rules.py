"""The rules of a chapter that can be seen without running it.

Each rule is a function that yields what is wrong with one notebook. `make check` prints them all,
and a test plants every fault and sees its own rule turn red.

    python -m tools.rules [chapter.ipynb ...]
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from tools import chapters as book

LONGEST_CELL = 20
COMPARED_SHARE = 0.7
LESSON_ID = re.compile(r"^(A(1[01]|[1-9])|B[1-3]|C[1-9]|D(1[01]|[1-9])|K(2[0-5]|1\d|[1-9])"
                       r"|E[1-7]|F(1[0-2]|[1-9])|G(1[0-6]|[1-9])|H[1-9])$")  # fmt: skip
HEADINGS = ["Exercises", "Quiz", "What to remember", "Further reading"]
OPENING = ["**What you will be able to do**", "**Before you start**", "**Time on a CPU**"]
IGNORED = "nbval-ignore-output"
SET_UP = """\
import sys

if "google.colab" in sys.modules:
    %pip install -q "tlbook @ git+{url}"

import torch

from tlbook import seed_everything

seed_everything(0)"""

Rule = Callable[[NotebookNode], Iterator[str]]


def problems(path: Path) -> list[str]:
    """Return everything that is wrong with a chapter, one sentence each."""
    notebook = nbformat.read(path, as_version=4)
    return [problem for rule in RULES for problem in rule(notebook)]


def set_up_cell() -> str:
    """Return the set-up cell that every chapter begins with."""
    config = (book.ROOT / "_config.yml").read_text()
    return SET_UP.format(url=re.search(r"^  url: (\S+)", config, re.MULTILINE)[1])


def is_run(notebook: NotebookNode) -> Iterator[str]:
    """Every code cell has been run, from top to bottom, in one go."""
    counts = [cell.execution_count for cell in _code(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"not run once from top to bottom: execution counts {counts}; make refresh"


def is_set_up(notebook: NotebookNode) -> Iterator[str]:
    """The first code cell is the set-up cell, the same in every chapter."""
    first = next(_code(notebook), None)
    if first is None or first.source != set_up_cell():
        yield "the set-up cell differs from the one in tools/rules.py"
    elif "hide-cell" not in _tags(first):
        yield "the set-up cell lacks the tag hide-cell"


def has_short_cells(notebook: NotebookNode) -> Iterator[str]:
    """No code cell is longer than a reader takes in at once."""
    for number, cell in enumerate(_code(notebook), 1):
        length = len(cell.source.splitlines())
        if length > LONGEST_CELL:
            yield f"code cell {number} is too long: {length} lines, at most {LONGEST_CELL}"


def has_no_pictures(notebook: NotebookNode) -> Iterator[str]:
    """Pictures are made by running a chapter, not stored in it."""
    for number, cell in enumerate(_code(notebook), 1):
        kinds = [kind for output in cell.outputs for kind in output.get("data", {})]
        if any(kind.startswith(("image/", "application/")) for kind in kinds):
            yield f"code cell {number} stores a picture or widget ({', '.join(kinds)})"
    if any(cell.get("attachments") for cell in notebook.cells):
        yield "a text cell has an attached picture"


def has_plain_code(notebook: NotebookNode) -> Iterator[str]:
    """No star imports, no magics or shell lines outside the set-up cell, nothing skipped."""
    for number, cell in enumerate(list(_code(notebook))[1:], 2):
        if re.search(r"^\s*from .+ import \*", cell.source, re.MULTILINE):
            yield f"code cell {number} has a star import"
        if re.search(r"^\s*[%!]", cell.source, re.MULTILINE):
            yield f"code cell {number} has a magic or shell line"
        if "nbval-skip" in _tags(cell) or "NBVAL_SKIP" in cell.source:
            yield f"code cell {number} is skipped by nbval"


def has_tagged_photographs(notebook: NotebookNode) -> Iterator[str]:
    """A cell that names photographs says so by its tag, or the build would need them."""
    for number, cell in enumerate(_code(notebook), 1):
        loaded = [n for n in book.PHOTOGRAPHS.values() if f'load_dataset("{n}"' in cell.source]
        if loaded and book.PHOTOGRAPHS_TAG not in _tags(cell):
            yield f"code cell {number} loads {loaded[0]} without the tag {book.PHOTOGRAPHS_TAG}"


def has_true_outputs(notebook: NotebookNode) -> Iterator[str]:
    """Stored outputs hold no error that was not announced, no warning, no path of a machine."""
    for number, cell in enumerate(_code(notebook), 1):
        failed = any(output.output_type == "error" for output in cell.outputs)
        announced = "raises-exception" in _tags(cell)
        if failed != announced:
            yield f"code cell {number}: error {failed}, tagged raises-exception {announced}"
        if any(output.get("name") == "stderr" for output in cell.outputs):
            yield f"code cell {number} stores a warning or other output to stderr"
        if re.search(r"/(home|root|Users|work|tmp)/\w", str(cell.outputs)):
            yield f"code cell {number} stores a path of one machine"


def is_compared(notebook: NotebookNode) -> Iterator[str]:
    """Most outputs are compared; after one that is not, an assert says what must hold."""
    cells = list(_code(notebook))
    with_output = [cell for cell in cells if cell.outputs]
    ignored = [cell for cell in with_output if IGNORED in _tags(cell)]
    if with_output and 1 - len(ignored) / len(with_output) < COMPARED_SHARE:
        yield f"only {len(with_output) - len(ignored)} of {len(with_output)} outputs are compared"
    for number, (cell, following) in enumerate(zip(cells, [*cells[1:], None], strict=True), 1):
        asserted = following is not None and "assert" in following.source
        if IGNORED in _tags(cell) and not asserted:
            yield f"code cell {number} is not compared and no assert follows it"


def has_described_pictures(notebook: NotebookNode) -> Iterator[str]:
    """Every cell that shows a picture says in words what is on it."""
    for number, cell in enumerate(_code(notebook), 1):
        shows = any("<Figure" in output.get("data", {}).get("text/plain", "")
                    for output in cell.outputs)  # fmt: skip
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if shows and len(alt) < 20:
            yield f"code cell {number} shows a picture without alt text (metadata mystnb.image.alt)"


def has_its_parts(notebook: NotebookNode) -> Iterator[str]:
    """A chapter has the parts that a reader finds in every other one, in the same order."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    opening = "\n".join(texts[:2])
    if not texts or len(re.findall(r"^# ", "\n".join(texts), re.MULTILINE)) != 1:
        yield "expected exactly one title (# ...)"
    for phrase in OPENING:
        if phrase not in opening:
            yield f"the opening lacks {phrase}"
    found = [h for h in re.findall(r"^## (.+)$", "\n".join(texts), re.MULTILINE) if h in HEADINGS]
    if found != HEADINGS:
        yield f"expected the sections {HEADINGS} in this order, found {found}"
    if "{cite" not in texts[-1]:
        yield "Further reading cites nothing: expected {cite} roles"


def has_lessons(notebook: NotebookNode) -> Iterator[str]:
    """Cells that prove a lesson carry its id."""
    ids = [lesson for cell in _code(notebook) for lesson in cell.metadata.get("lesson", [])]
    if not ids:
        yield 'no cell carries a lesson id (metadata "lesson": ["A1"])'
    for lesson in ids:
        if not LESSON_ID.match(lesson):
            yield f"there is no lesson {lesson}"


def has_exercises(notebook: NotebookNode) -> Iterator[str]:
    """Three to five exercises, each with an answer cell and a hidden, executed solution."""
    answers = [c for c in _code(notebook) if "exercise" in _tags(c)]
    solutions = [c for c in _code(notebook) if "solution" in _tags(c)]
    if not 3 <= len(answers) <= 5:
        yield f"expected 3 to 5 exercises (tag exercise), found {len(answers)}"
    if [_checked(c) for c in answers] != [_checked(c) for c in solutions]:
        yield "expected for every exercise one solution (tag solution) with the same check"
    for cell in answers:
        if not re.search(r"^answer = \.\.\.", cell.source, re.MULTILINE):
            yield f"the answer cell of {_checked(cell)} is not empty: expected `answer = ...`"
    for cell in solutions:
        if "hide-cell" not in _tags(cell):
            yield f"the solution of {_checked(cell)} is not hidden (tag hide-cell)"
        if "Passed" not in str(cell.outputs):
            yield f"the solution of {_checked(cell)} does not pass its own check"


def has_a_quiz(notebook: NotebookNode) -> Iterator[str]:
    """Three to five questions; every answer opens without JavaScript and is explained."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    quiz = text.partition("## Quiz")[2].partition("\n## ")[0]
    questions = re.findall(r"^\*\*\d\. ", quiz, re.MULTILINE)
    if not 3 <= len(questions) <= 5:
        yield f"expected 3 to 5 quiz questions (**1. ...**), found {len(questions)}"
    choices = re.findall(r"<summary>(.*?)</summary>\s*(.*?)</details>", quiz, re.DOTALL)
    if len(choices) < 3 * len(questions):
        yield f"expected at least 3 choices a question, found {len(choices)} in all"
    for choice, explanation in choices:
        if len(explanation.split()) < 4:
            yield f"the choice {choice!r} is not explained"


def _code(notebook: NotebookNode) -> Iterator[NotebookNode]:
    return (cell for cell in notebook.cells if cell.cell_type == "code")


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _checked(cell: NotebookNode) -> str | None:
    found = re.search(r"check\.(\w+)\(", cell.source)
    return found and found[1]


RULES: list[Rule] = [
    is_run, is_set_up, has_short_cells, has_no_pictures, has_plain_code, has_tagged_photographs,
    has_true_outputs, is_compared, has_described_pictures, has_its_parts, has_lessons,
    has_exercises, has_a_quiz,
]  # fmt: skip


def main() -> None:
    """Print the problems of the chapters that are named, or of all; exit 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", type=Path)
    paths = parser.parse_args().chapters or book.chapters()
    found = [f"{path}: {problem}" for path in paths for problem in problems(path)]
    found += [f"{name} is missing from _toc.yml" for name in book.unlisted()]
    print("\n".join(found) or f"{len(paths)} chapters follow the rules")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
