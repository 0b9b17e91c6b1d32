"""Make the bundled part of Fashion-MNIST: every fifth image of each class, in their order.

It reads Debian's package dataset-fashion-mnist (apt install dataset-fashion-mnist), or another
folder with the four published files. The same input gives the same bytes. Of the formats tried,
LZMA in an .npz was the smallest that NumPy reads by itself. Run from the repository's root:

    python -m tools.make_fashion_mnist
"""

import argparse
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np

from tlbook.data import FASHION_BUNDLE
from tlbook.sources import DEBIAN_FASHION, read_fashion

_STEP = 5


def select(targets: np.ndarray) -> np.ndarray:
    """Return the indices of every fifth image of each class, sorted.

    No random numbers: their streams change between versions of NumPy, counting does not.
    """
    per_class = [np.flatnonzero(targets == label)[::_STEP] for label in np.unique(targets)]
    return np.sort(np.concatenate(per_class))


def bundle_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Return the uint8 arrays of the bundle: images (N, 28, 28) and labels (N,) of each split."""
    arrays = {}
    for split in ("train", "test"):
        images, targets = (tensor.numpy() for tensor in read_fashion(folder, split))
        chosen = select(targets)
        arrays[f"{split}_images"] = images[chosen]
        arrays[f"{split}_targets"] = targets[chosen].astype(np.uint8)
    return arrays


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an .npz that depends on the arrays alone, not on the date or the machine."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # it would be another number on Windows
            archive.writestr(entry, content.getvalue(), zipfile.ZIP_LZMA)


def main() -> None:
    """Write the bundle and print its size and hash."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=DEBIAN_FASHION)
    parser.add_argument("--output", type=Path, default=FASHION_BUNDLE)
    options = parser.parse_args()
    write_npz(options.output, bundle_arrays(options.folder))
    content = options.output.read_bytes()
    print(
        f"{options.output}: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}"
    )


if __name__ == "__main__":
    main()
