"""Change the repository's address everywhere: `_config.yml` holds it, other files repeat it.

python -m tools.set_repo https://github.com/owner/name
"""

import argparse
import re
import subprocess
from pathlib import Path

from tools.chapters import ROOT

ADDRESS = re.compile(r"https://github\.com/[\w.-]+/[\w-]+(?=[\s\"'/#?)]|\.git|$)")
REPEATS = ["*.md", "*.toml", "*.cff", "*.ipynb", "*.yml"]
PROJECT_NAME = "model-surgery"


def addresses(root: Path) -> dict[str, str]:
    """Return, for each file that repeats it, the repository's address as it stands there."""
    current = _configured(root)
    name = current.rsplit("/", 1)[1]
    found = {"_config.yml": current}
    for file in _files(root):
        for address in ADDRESS.findall(file.read_text()):
            if address.rsplit("/", 1)[1] in {name, PROJECT_NAME}:
                found[file.relative_to(root).as_posix()] = address
    return found


def set_address(root: Path, new: str) -> list[str]:
    """Write a new address wherever the old one stands; return the files that changed."""
    old = _configured(root)
    changed = []
    for file in _files(root):
        text = file.read_text()
        if old in text:
            file.write_text(text.replace(old, new))
            changed.append(file.relative_to(root).as_posix())
    return changed


def _configured(root: Path) -> str:
    config = (root / "_config.yml").read_text()
    return re.search(r"^  url: (\S+)", config, re.MULTILINE)[1]


def _files(root: Path) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *REPEATS],
        cwd=root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [root / name for name in listed.stdout.splitlines()]


def main() -> None:
    """Set the address and say which files changed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    for name in set_address(ROOT, parser.parse_args().address.rstrip("/")):
        print(name)


if __name__ == "__main__":
    main()
