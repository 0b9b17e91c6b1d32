"""The book's chapters: which there are, and running one in a kernel of its own."""

import asyncio
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
import yaml
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
SECONDS_PER_CELL = 120
# Nobody watches a progress bar here. Threads that wait for each other spin for some microseconds
# and then sleep: spinning for long takes minutes on cores that other programs use as well, and
# sleeping at once makes small steps three times slower.
KERNEL_ENVIRONMENT = {"TLBOOK_PROGRESS": "0", "GOMP_SPINCOUNT": "10000"}
SAMPLE_EVERY = 0.1  # seconds between two looks at the kernel's memory
# Case studies on photographs that the project may not ship: the chapter's name, the dataset's.
PHOTOGRAPHS = {"ants_and_bees": "hymenoptera", "cats_and_dogs": "cats_and_dogs"}
PHOTOGRAPHS_TAG = "photographs"  # of cells that need them, or names that such a cell has made


def pages(root: Path = ROOT) -> list[Path]:
    """Return every page that `_toc.yml` lists, in its order."""
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    names = [toc["root"]]
    names += [entry["file"] for part in toc["parts"] for entry in part["chapters"] or []]
    return [_with_suffix(root / name) for name in names]


def chapters(root: Path = ROOT) -> list[Path]:
    """Return the pages that are notebooks."""
    return [page for page in pages(root) if page.suffix == ".ipynb"]


def unlisted(root: Path = ROOT) -> list[str]:
    """Return the chapters and pages under book/ that `_toc.yml` does not list."""
    files = {path for kind in ("*.ipynb", "*.md") for path in (root / "book").rglob(kind)}
    hidden = {path for path in files if ".ipynb_checkpoints" in path.parts}
    return sorted(p.relative_to(root).as_posix() for p in files - hidden - set(pages(root)))


def missing_photographs(chapter: Path) -> str | None:
    """Say which photographs a chapter needs that are not on this machine, and how to get them.

    Nothing is downloaded here: a test or a build that fetches on its own account would depend on
    somebody else's server.
    """
    name = PHOTOGRAPHS.get(chapter.stem) if chapter.suffix == ".ipynb" else None
    if name is None:
        return None
    from tlbook.data import dataset_status  # takes PyTorch, which other chapters do not wait for

    status = dataset_status(name)
    if status.present:
        return None
    return f"{chapter.stem}: the photographs {name} are not on this machine; {status.how_to_get}"


def _with_suffix(page: Path) -> Path:
    found = [page.with_name(page.name + suffix) for suffix in (".ipynb", ".md")]
    existing = [path for path in found if path.exists()]
    if not existing:
        raise SystemExit(f"_toc.yml lists {page}, but neither .ipynb nor .md is there")
    return existing[0]


@dataclass(frozen=True)
class Run:
    """An executed notebook, its seconds, and the largest memory its kernel held, in bytes."""

    notebook: NotebookNode
    seconds: float
    peak: int


def run(path: Path, folder: Path | None = None, *, skipped_tag: str = "") -> Run:
    """Execute a notebook from top to bottom in a new kernel, as a reader would.

    Args:
        path: the notebook, which is not changed.
        folder: where it runs; None is the notebook's own folder.
        skipped_tag: cells with this tag are not run and keep their stored outputs; "" runs all.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell raises.
        nbclient.exceptions.DeadKernelError: if the kernel dies.
    """
    os.environ |= KERNEL_ENVIRONMENT
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=SECONDS_PER_CELL,
        record_timing=False,  # it would become part of the cells, and of the key in the cache
        kernel_name="python3",
        skip_cells_with_tag=skipped_tag,
        resources={"metadata": {"path": str(folder or path.parent)}},
    )
    memory = _Memory()
    client.on_notebook_start = lambda **_: memory.watch(client.km)
    start = time.perf_counter()
    try:
        asyncio.run(client.async_execute())
    finally:
        memory.stop()
    return Run(_without_paths(notebook), time.perf_counter() - start, memory.peak)


def _without_paths(notebook: NotebookNode) -> NotebookNode:
    """Keep of every traceback the error alone: the rest is full of one machine's paths."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                output.traceback = [f"{output.ename}: {output.evalue}"]
    return notebook


class _Memory:
    """Samples the memory of a kernel and its children from a thread."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, manager) -> None:
        self._thread = threading.Thread(target=self._sample, args=(manager,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _sample(self, manager) -> None:
        kernel = psutil.Process(manager.provisioner.pid)
        while not self._stop.wait(SAMPLE_EVERY):
            try:
                held = _held([kernel, *kernel.children(recursive=True)])
            except psutil.NoSuchProcess:
                continue
            self.peak = max(self.peak, held)


def _held(processes: list[psutil.Process]) -> int:
    """Return the bytes that processes hold together.

    Forked workers share most of their pages with the kernel. Linux says what each holds in
    proportion; elsewhere shared pages count for every process.
    """
    if len(processes) == 1 or not psutil.LINUX:
        return sum(process.memory_info().rss for process in processes)
    return sum(process.memory_full_info().pss for process in processes)
