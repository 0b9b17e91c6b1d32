"""Settings for every test: data, quiet progress bars, and kernels that die noticed at once."""

import functools
import os
from pathlib import Path
from queue import Empty

import pytest
from nbval.kernel import RunningKernel

from tools.chapters import missing_photographs

SHARED_DATA = Path(__file__).parent.parent / "shared" / "data"
LOOK_EVERY = 1.0  # seconds between two looks at whether a kernel still lives

os.environ["TLBOOK_PROGRESS"] = "0"
os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # why: tools/chapters.py
if SHARED_DATA.is_dir():
    os.environ.setdefault("TLBOOK_DATA", str(SHARED_DATA))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, by name, the chapters whose photographs are not here; no kernel starts for them."""
    reason_for = functools.cache(missing_photographs)
    for item in items:
        if reason := reason_for(item.path):
            item.add_marker(pytest.mark.skip(reason=reason))


def _await_reply(self: RunningKernel, msg_id: str, timeout: float | None = None) -> None:
    """Wait for a reply as nbval does, but fail as soon as the kernel is dead.

    nbval itself waits for the cell's whole time-out, 2000 s by default.
    """
    waited = 0.0
    while timeout is None or waited < timeout:
        try:
            message = self.get_message(stream="shell", timeout=LOOK_EVERY)
        except Empty:
            waited += LOOK_EVERY
            if not self.is_alive():
                raise RuntimeError("the kernel died while it ran this cell") from None
            continue
        if message["parent_header"].get("msg_id") == msg_id:
            return
    raise Empty


RunningKernel.await_reply = _await_reply
