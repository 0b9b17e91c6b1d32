"""Write the skeleton of a chapter, with every part in its place.

python -m tools.new_chapter look/hooks "Looking inside a run"
"""

import argparse
import sys

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import chapters as book
from tools.refresh import normalise
from tools.rules import set_up_cell

OPENING = """\
# {title}

The question that this chapter answers, in two or three sentences.

**What you will be able to do**

- ...

**Before you start** ...

**Time on a CPU** under a minute."""

QUESTION = """\
## Quiz

**1. ...?**

<details><summary>...</summary>

Why this is right.

</details>
<details><summary>...</summary>

Why this is wrong.

</details>"""


def skeleton(name: str, title: str) -> nbformat.NotebookNode:
    """Return a notebook with the parts that every chapter has; `name` is the chapter's own."""
    cells = [
        new_markdown_cell(OPENING.format(title=title)),
        new_code_cell(set_up_cell(), metadata={"tags": ["hide-cell"]}),
        new_markdown_cell("## One idea\n\nWhat do you expect the next cell to print?"),
        new_code_cell("print(torch.ones(2).sum())", metadata={"lesson": []}),
        new_markdown_cell("## Exercises"),
    ]
    for number in range(1, 4):
        call = f"check.{name}_{number}"
        cells += [
            new_markdown_cell(f"### {number}. ...\n\nThe prompt."),
            new_code_cell(f"answer = ...\n{call}(answer)", metadata={"tags": ["exercise"]}),
            new_code_cell(
                f"solution = ...\n{call}(solution)", metadata={"tags": ["solution", "hide-cell"]}
            ),
        ]
    cells += [
        new_markdown_cell(QUESTION),
        new_markdown_cell("## What to remember\n\n- ..."),
        new_markdown_cell("## Further reading\n\n- {cite:t}`...`: why to read it."),
    ]
    return normalise(new_notebook(cells=cells))


def main() -> None:
    """Write the notebook; an existing one is never overwritten."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="part and chapter, such as look/hooks")
    parser.add_argument("title")
    arguments = parser.parse_args()
    path = book.ROOT / "book" / f"{arguments.name}.ipynb"
    if path.exists():
        sys.exit(f"{path.relative_to(book.ROOT)} is there already: choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(skeleton(path.stem, arguments.title), path)
    print(f"{path.relative_to(book.ROOT)} written: add book/{arguments.name} to _toc.yml")


if __name__ == "__main__":
    main()
