"""Execute every chapter that is new, changed, or touched by a change elsewhere.

Results go into the cache from which Jupyter Book renders. Its own key is the cells of a notebook;
here a chapter's record is dropped as well when the package, the bundled data or the pins that it
depends on have changed. Seconds and memory of every chapter become a page of the book.

    python -m tools.execute
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

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
        key = fingerprint(chapter, root)
        if not _is_current(cache, chapter, ledger.get(name), key):
            try:
                ledger[name] = {**_execute(cache, chapter, name), "fingerprint": key}
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


def _execute(cache: JupyterCacheAbstract, chapter: Path, name: str) -> dict:
    print(f"{name} ... ", end="", flush=True)
    run = book.run(chapter)
    bundle = CacheBundleIn(run.notebook, str(chapter), data={"execution_seconds": run.seconds})
    cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    print(f"{run.seconds:.0f} s, {run.peak / MEGABYTE:.0f} MB")
    executed = datetime.now(UTC).isoformat(timespec="seconds")
    return {"seconds": round(run.seconds, 1), "peak": run.peak, "executed": executed}


def _write_page(path: Path, ledger: dict[str, dict]) -> None:
    rows = [
        f"| [](/{name}) | {row['seconds']:.0f} | {row['peak'] / MEGABYTE:.0f} |"
        for name, row in ledger.items()
    ]
    total = sum(row["seconds"] for row in ledger.values())
    lines = ["| Chapter | Seconds | Peak memory, MB |", "| --- | ---: | ---: |", *rows]
    text = "\n".join([*lines, f"| **All chapters** | {total:.0f} | |"]) + "\n"
    if not path.exists() or path.read_text() != text:  # an unchanged page is not rendered again
        path.write_text(text)


if __name__ == "__main__":
    execute_all()
