"""Runs that do not touch each other: one at a time in a process, seeded, with threads of their own.

The random state and the number of threads belong to a whole process. A result can be the same in
any process and any order only if both are set for each run, and given back after it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tlbook.checkpoint import get_random_state, set_random_state
from tlbook.runtime import seed_everything

# A cluster's worker may run several tasks as threads of one process.
_TURN = threading.Lock()


@contextmanager
def alone(seed: int, threads: int) -> Iterator[None]:
    """Run a block with its own seed and number of threads, while no other such block runs.

    Args:
        seed: of Python, NumPy and PyTorch, inside the block.
        threads: that PyTorch computes with. Sums over another number of threads differ in their
            last bits, which training magnifies.

    Example:
        >>> with alone(seed=0, threads=1):
        ...     first = torch.rand(3)
        >>> with alone(seed=0, threads=1):
        ...     second = torch.rand(3)
        >>> torch.equal(first, second)
        True
    """
    with _TURN:
        state, count = get_random_state(None), torch.get_num_threads()
        torch.set_num_threads(threads)
        seed_everything(seed)
        try:
            yield
        finally:
            set_random_state(state, None)
            torch.set_num_threads(count)
