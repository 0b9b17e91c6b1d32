"""Run chapters as a reader does who has installed the wheel alone: from elsewhere, no checkout.

A new environment gets the wheel. The libraries come from the environment that runs this script,
through a path file, because installing several gigabytes again would prove nothing more: the
package itself is found in the new environment only, and the script checks that.

    python -m tools.run_from_wheel [chapter.ipynb ...]
"""

import argparse
import os
import shutil
import site
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tools import chapters as book

RUN = """\
import sys, nbformat, nbclient, tlbook
assert tlbook.__file__.startswith(sys.prefix), f"the checkout was imported: {tlbook.__file__}"
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
"""


def new_environment(folder: Path, wheel: Path) -> Path:
    """Make an environment that holds the wheel alone, and return its Python."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    packages = next((folder / "lib").glob("python*/site-packages"))
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "install", "--no-deps", "--no-compile",
         "--target", str(packages), str(wheel)], check=True,
    )  # fmt: skip
    # Plain lines add folders and do not run the path files inside: the checkout stays out.
    (packages / "libraries.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    kernels = Path(sys.prefix) / "share" / "jupyter" / "kernels" / "python3"
    own = folder / "share" / "jupyter" / "kernels" / "python3"
    shutil.copytree(kernels, own)
    kernel = (own / "kernel.json").read_text()
    (own / "kernel.json").write_text(kernel.replace('"python"', f'"{python}"'))
    return python


def run_chapter(python: Path, chapter: Path) -> subprocess.CompletedProcess:
    """Run a copy of a chapter in an empty folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(chapter, folder)
        environment = {**os.environ, "TLBOOK_PROGRESS": "0", "JUPYTER_PREFER_ENV_PATH": "1"}
        environment.pop("PYTHONPATH", None)
        return subprocess.run(
            [str(python), "-c", RUN, chapter.name],
            cwd=folder, env=environment, capture_output=True, text=True,
        )  # fmt: skip


def build_wheel(folder: Path) -> Path:
    """Build the wheel into a folder, from a copy, so that nothing is left in the checkout."""
    with tempfile.TemporaryDirectory() as copy:
        names = ["pyproject.toml", "README.md", "LICENSE", "tlbook"]
        for source in (book.ROOT / name for name in names):
            target = Path(copy, source.name)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder),
             copy], check=True, capture_output=True,
        )  # fmt: skip
    return next(folder.glob("*.whl"))


def main() -> None:
    """Run the chapters that are named, or all; exit 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", type=Path)
    asked = parser.parse_args().chapters or book.chapters()
    missing = {chapter: book.missing_photographs(chapter) for chapter in asked}
    for reason in filter(None, missing.values()):
        print(f"skipped: {reason}")
    chapters = [chapter for chapter, reason in missing.items() if reason is None]
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        print(f"{wheel.name}: {wheel.stat().st_size / 2**20:.1f} MB")
        python = new_environment(Path(folder, "environment"), wheel)
        runs = {chapter: run_chapter(python, chapter.resolve()) for chapter in chapters}
    for chapter, run in runs.items():
        print(f"{chapter.name}: {'failed' if run.returncode else 'ran'}\n{run.stderr[-3000:]}")
    sys.exit(any(run.returncode for run in runs.values()))


if __name__ == "__main__":
    main()
