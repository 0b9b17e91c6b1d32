"""Execute every chapter that is new, changed, or touched by a change elsewhere.

Results go into the cache from which Jupyter Book renders. Its own key is the cells of a notebook;
here a chapter's record is dropped as well when the package, the bundled data or the pins that it
depends on have changed. Seconds and memory of every chapter become a page of the book.

Where photographs are missing that a case study needs, its cells that need them keep their stored
outputs, and the page says so; the others run. A photograph itself never gets onto a page.

    python -m tools.execute
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output

from tools import chapters as book
from tools.affected import fingerprint

MEGABYTE = 2**20


def execute_all(root: Path = book.ROOT) -> dict[str, dict]:
    """Bring the cache up to date and return the ledger: for each chapter seconds and bytes.

    Raises:
        SystemExit: naming every chapter that failed; those that ran are kept.
    """
    build = root / "_build"
    build.mkdir(exist_ok=True)
    cache = get_cache(build / ".jupyter_cache")
    ledger_file = build / "execution.json"
    ledger = json.loads(ledger_file.read_text()) if ledger_file.exists() else {}
    listed = {chapter.relative_to(root).as_posix(): chapter for chapter in book.chapters(root)}
    ledger = {name: row for name, row in ledger.items() if name in listed}
    failed = {}
    for name, chapter in listed.items():
        missing = book.missing_photographs(chapter)
        key = fingerprint(chapter, root) + (" without photographs" if missing else "")
        if not _is_current(cache, chapter, ledger.get(name), key):
            try:
                ledger[name] = {**_execute(cache, chapter, name, missing), "fingerprint": key}
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
                failed[name] = error
        ledger_file.write_text(json.dumps(ledger, indent=1))
    _write_page(
        build / "execution_times.md", {name: ledger[name] for name in listed if name in ledger}
    )
    for name, error in failed.items():
        print(f"{name} failed:\n{error}", file=sys.stderr)
    if failed:
        sys.exit(f"{len(failed)} of {len(listed)} chapters failed: {', '.join(failed)}")
    return ledger


def _is_current(cache: JupyterCacheAbstract, chapter: Path, row: dict | None, key: str) -> bool:
    """Tell whether the cache holds this chapter's results; a stale record is dropped."""
    try:
        record = cache.match_cache_file(str(chapter))
    except KeyError:
        return False
    if row is not None and row["fingerprint"] == key:
        return True
    cache.remove_cache(record.pk)
    return False


def _execute(cache: JupyterCacheAbstract, chapter: Path, name: str, missing: str | None) -> dict:
    print(f"{name} ... ", end="", flush=True)
    run = book.run(chapter, skipped_tag=book.PHOTOGRAPHS_TAG if missing else "")
    notebook = without_photographs(run.notebook, missing)
    bundle = CacheBundleIn(notebook, str(chapter), data={"execution_seconds": run.seconds})
    cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    remark = " (without its photographs)" if missing else ""
    print(f"{run.seconds:.0f} s, {run.peak / MEGABYTE:.0f} MB{remark}")
    executed = datetime.now(UTC).isoformat(timespec="seconds")
    measured = {"seconds": round(run.seconds, 1), "peak": run.peak}
    return {**measured, "executed": executed, "remark": remark}


def without_photographs(notebook: NotebookNode, missing: str | None) -> NotebookNode:
    """Put words in the place of the pictures of cells that show photographs.

    A cell without its own photographs shows what is stored with the chapter; the first one says so.
    """
    tagged = [c for c in notebook.cells if book.PHOTOGRAPHS_TAG in c.metadata.get("tags", [])]
    for cell in tagged:
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        for output in cell.outputs:
            if "<Figure" in output.get("data", {}).get("text/plain", ""):
                output.data = nbformat.from_dict({"text/plain": f"Picture, when you run it: {alt}"})
    if missing and tagged:
        text = f"Stored outputs, here and wherever photographs are needed. {missing}.\n"
        tagged[0].outputs.insert(0, new_output("stream", name="stdout", text=text))
    return notebook


def _write_page(path: Path, ledger: dict[str, dict]) -> None:
    rows = [
        f"| [](/{name}){row.get('remark', '')} | {row['seconds']:.0f} "
        f"| {row['peak'] / MEGABYTE:.0f} |"
        for name, row in ledger.items()
    ]
    total = sum(row["seconds"] for row in ledger.values())
    lines = ["| Chapter | Seconds | Peak memory, MB |", "| --- | ---: | ---: |", *rows]
    text = "\n".join([*lines, f"| **All chapters** | {total:.0f} | |"]) + "\n"
    if not path.exists() or path.read_text() != text:  # an unchanged page is not rendered again
        path.write_text(text)


if __name__ == "__main__":
    execute_all()
