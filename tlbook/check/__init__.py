"""The checks of the exercises, one function for each: `check.<chapter>_<n>(answer)`."""

from tlbook.check.look import modules_1, modules_2, modules_3, modules_4

__all__ = ["modules_1", "modules_2", "modules_3", "modules_4"]
