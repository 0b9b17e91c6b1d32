"""The checks of the exercises, one function for each: `check.<chapter>_<n>(answer)`."""

from tlbook.check.look import modules_1, modules_2, modules_3, modules_4
from tlbook.check.train import loop_1, loop_2, loop_3, loop_4

__all__ = [
    "loop_1",
    "loop_2",
    "loop_3",
    "loop_4",
    "modules_1",
    "modules_2",
    "modules_3",
    "modules_4",
]
