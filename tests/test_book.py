"""The book as a whole: every chapter follows the rules, is listed, and keeps its budget."""

import json
import re
from pathlib import Path

import nbformat
import pytest

import tlbook
from tools import chapters as book
from tools.execute import execute_all
from tools.rules import problems

SECONDS, MEGABYTES = 90, 1500
SLACK = 1.5  # a noisy machine is slower; memory is not

# How many lessons each part has; a cell of some chapter proves each.
PARTS = {"A": 11, "B": 3, "C": 9, "D": 11, "E": 7, "F": 12, "G": 16, "H": 9, "K": 25}
LESSONS = {f"{part}{number}" for part, last in PARTS.items() for number in range(1, last + 1)}


@pytest.mark.parametrize("chapter", book.chapters(), ids=lambda path: path.stem)
def test_a_chapter_follows_the_rules(chapter):
    assert problems(chapter) == []


def test_every_chapter_and_page_is_in_the_table_of_contents():
    assert book.unlisted() == []


def test_every_lesson_is_proved_by_an_executed_cell():
    proved = set()
    for chapter in book.chapters():
        cells = nbformat.read(chapter, as_version=4).cells
        code = [cell for cell in cells if cell.cell_type == "code" and cell.execution_count]
        proved |= {lesson for cell in code for lesson in cell.metadata.get("lesson", [])}
    assert proved >= LESSONS


def test_the_clinic_leads_to_every_case():
    index = (book.ROOT / "book" / "clinic" / "index.md").read_text()
    linked = set(re.findall(r"\{ref\}`[^`<]*<(k\d+)>`", index))
    cases = {
        target
        for chapter in (book.ROOT / "book" / "clinic").glob("*.ipynb")
        for target in re.findall(r"^\((k\d+)\)=$", _prose(chapter), re.MULTILINE)
    }
    assert linked == cases == {f"k{number}" for number in range(1, 26)}


@pytest.fixture(scope="module")
def ledger():
    return execute_all()


def test_every_chapter_keeps_its_budget(ledger):
    assert set(ledger) == {path.relative_to(book.ROOT).as_posix() for path in book.chapters()}
    slow = {
        name: row["seconds"] for name, row in ledger.items() if row["seconds"] > SECONDS * SLACK
    }
    large = {name: row["peak"] for name, row in ledger.items() if row["peak"] > MEGABYTES * 2**20}
    assert (slow, large) == ({}, {})


def test_the_page_of_execution_times_lists_every_chapter(ledger):
    page = (book.ROOT / "_build" / "execution_times.md").read_text()
    assert all(f"/{name}" in page for name in ledger)


def test_every_term_and_citation_that_a_chapter_uses_exists():
    glossary = (book.ROOT / "book" / "reference" / "glossary.md").read_text()
    terms = {line.strip().lower() for line in glossary.splitlines()}
    entries = set(re.findall(r"@\w+\{([^,]+),", (book.ROOT / "references.bib").read_text()))
    for page in book.pages():
        text = _prose(page)
        for term in re.findall(r"\{term\}`(?:[^`<]*<)?([^`>]+)>?`", text):
            assert term.lower() in terms, f"{page.name}: {term} is not in the glossary"
        for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text):
            for key in keys.split(","):
                assert key.strip() in entries, f"{page.name}: {key} is not in references.bib"


def test_links_between_pages_lead_to_files_that_exist():
    for page in book.pages():
        for link in re.findall(r"\]\(((?!https?:)[^)#]+)", _prose(page)):
            target = book.ROOT / link[1:] if link.startswith("/") else page.parent / link
            exists = any(Path(f"{target}{suffix}").exists() for suffix in ("", ".md", ".ipynb"))
            assert exists, f"{page.name} links to {link}"


def _prose(page):
    if page.suffix == ".md":
        return page.read_text()
    cells = json.loads(page.read_text())["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def test_the_api_page_describes_every_public_name():
    page = (book.ROOT / "book" / "reference" / "api.md").read_text()
    described = re.findall(r"^\.\. auto\w+:: (\w+)$", page, re.MULTILINE)
    assert sorted(described) == sorted(set(tlbook.__all__) - {"check"})
