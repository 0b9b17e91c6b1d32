"""Every recipe is short and runs as it stands, in an empty folder."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "book" / "recipes.md"
RECIPES = dict(re.findall(r"^### (.+?)\n\n```python\n(.+?)```", PAGE.read_text(), re.M | re.S))


def test_every_recipe_is_found_and_leads_to_a_chapter():
    text = PAGE.read_text()
    assert len(RECIPES) == text.count("\n### ") == text.count("```python") >= 10
    for recipe in text.split("\n### ")[1:]:
        assert re.search(r"\]\([\w/]+\.(ipynb|md)\)|\{ref\}", recipe.rpartition("```")[2])


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs(name, tmp_path, monkeypatch):
    code = RECIPES[name]
    lines = [line for line in code.splitlines() if line and not line.startswith(("from", "import"))]
    assert len(lines) <= 10
    monkeypatch.chdir(tmp_path)
    exec(compile(code, name, "exec"), {})
