"""Modules by dotted path, the way `named_modules` spells them.

Freezing, auditing and editing all take such paths from the reader, so all of them refuse a
misspelt one with the same message and the nearest paths that do exist.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from torch import nn

SHELL = "_orig_mod"
CONTAINERS = nn.Sequential | nn.ModuleList | nn.ModuleDict


def find_module(model: nn.Module, path: str) -> nn.Module:
    """Find the module at a dotted path.

    Args:
        model: the network to search; the empty path is the network itself.
        path: the path as `named_modules` spells it, for example "layer1.0.conv1"; in a compiled
            network with or without the prefix `_orig_mod`.

    Returns:
        The module at that path.

    Raises:
        ValueError: if there is no such module, naming the nearest paths.

    Example:
        >>> find_module(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), "1")
        ReLU()
    """
    module = unwrap(model)
    for name in path.split(".") if path else ():
        if name != SHELL:
            module = unwrap(module._modules.get(name))
        if module is None:
            paths = [other for other, _ in unwrap(model).named_modules() if other]
            kind = type(unwrap(model)).__name__
            raise ValueError(f"{kind} has no module {path!r}; {suggest(path, paths)}")
    return module


def unwrap(module: nn.Module) -> nn.Module:
    """Give the network inside a compiled one, which is a shell that passes everything on.

    Example:
        >>> unwrap(nn.ReLU())
        ReLU()
    """
    return getattr(module, SHELL, module)


def suggest(wrong: str, names: Iterable[str]) -> str:
    """Say which of the names come nearest to a wrong one.

    Args:
        wrong: the name that was asked for.
        names: the names that exist.

    Returns:
        A half sentence to end an error message with.

    Example:
        >>> suggest("layer5", ["conv1", "layer4", "fc"])
        "nearest: 'layer4'"
    """
    names = list(names)
    near = get_close_matches(wrong, names, n=3, cutoff=0.5)
    return "nearest: " + ", ".join(map(repr, near or names[:5]))


def split_path(path: str) -> tuple[str, str]:
    """Split a dotted path into the path of the parent and the last name.

    Example:
        >>> split_path("layer1.0.conv1"), split_path("fc")
        (('layer1.0', 'conv1'), ('', 'fc'))
    """
    parent, _, name = path.rpartition(".")
    return parent, name


def topmost(flags: Mapping[str, bool]) -> list[str]:
    """Keep the flagged paths whose parent is not flagged, so that a block is named once.

    Example:
        >>> topmost({"": False, "a": True, "a.0": True, "b": False, "b.1": True})
        ['a', 'b.1']
    """
    return [
        path
        for path, flagged in flags.items()
        if flagged and (not path or not flags[split_path(path)[0]])
    ]


def is_auxiliary(path: str) -> bool:
    """Tell whether a path lies in an auxiliary head, which runs in training only.

    Networks with one output too many are rare, and all of them name it so: GoogLeNet has `aux1`
    and `aux2`, Inception has `AuxLogits`, segmentation networks have `aux_classifier`.

    Example:
        >>> is_auxiliary("AuxLogits.fc"), is_auxiliary("fc")
        (True, False)
    """
    return any(part.lower().startswith("aux") for part in path.split("."))
