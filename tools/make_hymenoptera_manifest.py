"""Make the bundled list of hashes that downloaded photographs of ants and bees are held against.

The published archive has no published hash, so the list is made from a copy that is trusted, given
on the command line. `sha256sum --check` reads it. Run from the repository's root:

    python -m tools.make_hymenoptera_manifest FOLDER/hymenoptera_data
"""

import argparse
import hashlib
from pathlib import Path

from tlbook.sources import HYMENOPTERA_MANIFEST


def manifest(folder: Path) -> str:
    """Return one line per file, SHA-256 and path from the folder's own name on, sorted by path."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return "".join(
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  "
        f"{file.relative_to(folder.parent).as_posix()}\n"
        for file in files
    )


def main() -> None:
    """Write the manifest and print how many files it lists."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder hymenoptera_data")
    parser.add_argument("--output", type=Path, default=HYMENOPTERA_MANIFEST)
    options = parser.parse_args()
    text = manifest(options.folder)
    options.output.write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    print(f"{options.output}: {len(text.splitlines())} files, SHA-256 {digest}")


if __name__ == "__main__":
    main()
