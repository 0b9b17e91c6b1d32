"""Result files: what a benchmark measured, with machine, versions and date beside it."""

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torchvision

from tlbook.results import FOLDER


def write_result(name: str, measured: dict[str, Any]) -> Path:
    """Write `tlbook/assets/results/<name>.json`, which `load_result` reads, and return its path."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    content = {"measured": measured, "made by": f"python -m benchmarks.{name}", **_circumstances()}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return path


def stored_result(name: str) -> dict[str, Any]:
    """Return what a result file holds so far; empty where there is none yet."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text())["measured"] if path.exists() else {}


def _circumstances() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "processor": torch.cpu.get_capabilities()["cpu_name"],
            "architecture": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
    }
