"""What the long experiments measured: result files that travel with the package.

The scripts under `benchmarks/` write them, with machine, versions and date; chapters read and plot
them, so that no number in the book is typed by hand.
"""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "assets" / "results"


def load_result(name: str) -> dict[str, Any]:
    """Return the result file of a benchmark.

    Args:
        name: of the script under `benchmarks/`, such as "fit_speed".

    Returns:
        A dict with "measured" (what the script found), "made by" (the command), "date", "machine"
        and "versions".

    Raises:
        ValueError: for a name without result file, listing those there are.

    Example:
        >>> sorted(load_result("fit_speed"))
        ['date', 'machine', 'made by', 'measured', 'versions']
    """
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.json")))
        raise ValueError(f"no result file {name!r}: expected one of {known}")
    return json.loads(path.read_text(encoding="utf-8"))
