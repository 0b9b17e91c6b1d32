"""Make the environment `.venv` from requirements.txt. Runs on any Python, before there is one.

The stamp is written last: an interrupted set-up leaves none, and the next one starts afresh.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv"


def main():
    """Remake the environment; exit with one line where this Python is too old."""
    parser = argparse.ArgumentParser(description="make .venv from requirements.txt")
    parser.add_argument("--torch-index", help="package index with another build of torch")
    parser.add_argument("--newest", action="store_true", help="newest versions, not the pins")
    arguments = parser.parse_args()
    if sys.version_info < (3, 11):  # noqa: UP036 - this script meets whatever Python there is
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(f"Python {found} found, 3.11 or newer needed: make PYTHON=python3.11 ...")
    print("Setting up .venv (a few minutes, about 6.5 GB with torch's ordinary wheel)", flush=True)
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    venv.create(FOLDER, with_pip=True)
    pip = [str(FOLDER / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    if arguments.torch_index:
        torch = ["torch", "torchvision"] if arguments.newest else torch_pins()
        run([*pip, "--index-url", arguments.torch_index, *torch])
    if arguments.newest:
        run([*pip, "--editable", str(ROOT) + "[dev]"])
    else:
        run([*pip, "-r", str(ROOT / "requirements.txt")])
        run([*pip, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)])
    (FOLDER / ".ready").touch()


def torch_pins():
    """Return the two pins that another package index may serve."""
    pins = (ROOT / "requirements.txt").read_text().splitlines()
    return [pin for pin in pins if pin.startswith(("torch==", "torchvision=="))]


def run(command):
    """Run a command; its failure is ours."""
    finished = subprocess.run(command, check=False)
    if finished.returncode:
        sys.exit(finished.returncode)


if __name__ == "__main__":
    main()
