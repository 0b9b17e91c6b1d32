"""Run chapters again and store what they print: the outputs that `pytest --nbval` compares.

Pictures are dropped, metadata that tools leave behind too, and execution counts are those of one
run from top to bottom. A chapter whose cells fail is left as it is.

    python -m tools.refresh [chapter.ipynb ...]
"""

import argparse
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from tools import chapters as book

KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
PICTURES = ("image/", "application/pdf")


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Bring a notebook into the one form in which it is stored."""
    notebook.metadata = nbformat.from_dict(KERNEL)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:03d}"
        cell.metadata.pop("execution", None)
        cell.source = cell.source.strip("\n")
        if cell.cell_type == "code":
            cell.outputs = [_without_pictures(o) for o in cell.outputs if _is_kept(o)]
    return notebook


def store(path: Path) -> book.Run:
    """Run a chapter and write it back with its outputs."""
    run = book.run(path)
    nbformat.write(normalise(run.notebook), path)
    return run


def _is_kept(output: NotebookNode) -> bool:
    return not (output.output_type == "stream" and output.name == "stderr")


def _without_pictures(output: NotebookNode) -> NotebookNode:
    if "data" in output:
        kept = {kind: v for kind, v in output.data.items() if not kind.startswith(PICTURES)}
        output.data = nbformat.from_dict(kept)
        output.metadata = nbformat.from_dict({})
    return output


def main() -> None:
    """Refresh the chapters that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", type=Path)
    for path in parser.parse_args().chapters or book.chapters():
        if missing := book.missing_photographs(path):
            print(f"{path}: left as it is. {missing}")
            continue
        run = store(path.resolve())
        print(f"{path}: {run.seconds:.0f} s, {run.peak / 2**20:.0f} MB")


if __name__ == "__main__":
    main()
