"""Cut, replace and add layers of a network in place, by dotted path.

Every edit is worked out and checked before the first change, so an edit that fails leaves the
network as it was. Heads, stems and the audit live in modules of their own and are offered here
too, since they are used together.
"""

from torch import nn

from tlbook.audit import Audit, audit
from tlbook.heads import Head, adapt_in_channels, get_head, replace_head, replace_stem
from tlbook.paths import CONTAINERS, find_module, split_path

__all__ = [
    "Audit",
    "Head",
    "adapt_in_channels",
    "append",
    "audit",
    "delete",
    "get_head",
    "insert_after",
    "replace",
    "replace_head",
    "replace_stem",
    "truncate_after",
]


def delete(model: nn.Module, path: str) -> nn.Module:
    """Remove a layer or a block.

    Inside a Sequential, ModuleList or ModuleDict it is taken out, and containers numbered 0, 1,
    2, … are numbered anew. Anywhere else forward calls the layer by its name, so an Identity
    takes its place and the name keeps working.

    Args:
        model: the network; it is changed in place.
        path: the dotted path of what goes.

    Returns:
        The same network.

    Raises:
        ValueError: if the path is not there, naming the nearest.

    Example:
        >>> delete(nn.Sequential(nn.Linear(2, 3), nn.Dropout(), nn.ReLU()), "1")
        Sequential(
          (0): Linear(in_features=2, out_features=3, bias=True)
          (1): ReLU()
        )
    """
    parent, name = _parent(model, path)
    if not isinstance(parent, CONTAINERS):
        parent._modules[name] = _nothing(parent._modules[name])
        return model
    _refill(parent, [item for item in parent._modules.items() if item[0] != name])
    return model


def replace(model: nn.Module, path: str, module: nn.Module) -> nn.Module:
    """Put another module where one is; no key outside the path changes.

    Args:
        model: the network; it is changed in place.
        path: the dotted path of what goes.
        module: what comes in; it takes on the network's training mode.

    Returns:
        The same network.

    Raises:
        ValueError: if the path is not there, naming the nearest.
        TypeError: if `module` is not a module.

    Example:
        >>> replace(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), "1", nn.ELU())[1]
        ELU(alpha=1.0)
    """
    parent, name = _parent(model, path)
    parent._modules[name] = _ready(model, module)
    return model


def insert_after(
    model: nn.Module, path: str, module: nn.Module, *, name: str | None = None
) -> nn.Module:
    """Add a module that runs right after another one.

    In a numbered container the following layers move up by one; in a container with names, give
    the new layer one. Anywhere else forward calls the layer by its name, so a Sequential of both
    takes its place: `path` becomes `path.0`, the new module is `path.1`.

    Args:
        model: the network; it is changed in place.
        path: the dotted path of the layer that runs before.
        module: what comes in; it takes on the network's training mode.
        name: its name, in a container with names.

    Returns:
        The same network.

    Raises:
        ValueError: if the path is not there, naming the nearest, or the name does not fit.
        TypeError: if `module` is not a module.

    Example:
        >>> list(insert_after(nn.Sequential(nn.Linear(2, 3), nn.ELU()), "0", nn.ReLU()))[1:]
        [ReLU(), ELU(alpha=1.0)]
    """
    parent, before = _parent(model, path)
    if not isinstance(parent, CONTAINERS):
        both = nn.Sequential(parent._modules[before], _ready(model, module))
        both.training = model.training
        parent._modules[before] = both
        return model
    items = list(parent._modules.items())
    at = [child for child, _ in items].index(before) + 1
    items.insert(at, (_new_name(parent, path, name), _ready(model, module)))
    _refill(parent, items)
    return model


def append(model: nn.Module, path: str, module: nn.Module, *, name: str | None = None) -> nn.Module:
    """Add a module at the end of a container.

    Args:
        model: the network; it is changed in place.
        path: the dotted path of the Sequential, ModuleList or ModuleDict; "" is the network.
        module: what comes in; it takes on the network's training mode.
        name: its name, in a container with names.

    Returns:
        The same network.

    Raises:
        ValueError: if the path is not there, naming the nearest, if it is no container, or if
            the name does not fit.
        TypeError: if `module` is not a module.

    Example:
        >>> append(nn.Sequential(nn.Linear(2, 3)), "", nn.ReLU())[-1]
        ReLU()
    """
    parent = find_module(model, path)
    if not isinstance(parent, CONTAINERS):
        raise ValueError(
            f"{path!r} is a {type(parent).__name__}, whose forward would never call an added "
            "layer; expected a Sequential, ModuleList or ModuleDict. "
            "Use insert_after with the layer that runs before the new one."
        )
    new = (_new_name(parent, path, name), _ready(model, module))
    _refill(parent, [*parent._modules.items(), new])
    return model


def truncate_after(model: nn.Module, path: str) -> nn.Module:
    """Cut off everything that is registered after a layer.

    Later layers leave their containers; where forward calls them by name, an Identity takes
    their place. Steps that forward writes out itself, such as flatten, stay.

    Args:
        model: the network; it is changed in place.
        path: the dotted path of the last layer that stays.

    Returns:
        The same network.

    Raises:
        ValueError: if the path is not there, naming the nearest.

    Example:
        >>> truncate_after(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), "1")
        Sequential(
          (0): Linear(in_features=2, out_features=3, bias=True)
          (1): ReLU()
        )
    """
    _parent(model, path)
    while path:
        parent, name = _parent(model, path)
        names = list(parent._modules)
        for later in names[names.index(name) + 1 :]:
            if isinstance(parent, CONTAINERS):
                del parent._modules[later]
            elif parent._modules[later] is not None:
                parent._modules[later] = _nothing(parent._modules[later])
        path, _ = split_path(path)
    return model


def _parent(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    if not path:
        raise ValueError("the path is empty; expected a layer inside the network, such as 'fc'")
    find_module(model, path)
    parent, name = split_path(path)
    return find_module(model, parent), name


def _nothing(module: nn.Module) -> nn.Module:
    """Give what forward can go on with: a list that it loops over stays a list, without items."""
    has_forward = type(module).forward is not nn.Module.forward
    if has_forward or not isinstance(module, nn.ModuleList | nn.ModuleDict):
        return nn.Identity()
    return nn.ModuleList() if isinstance(module, nn.ModuleList) else nn.ModuleDict()


def _ready(model: nn.Module, module: nn.Module) -> nn.Module:
    if not isinstance(module, nn.Module):
        raise TypeError(f"module is {module!r}; expected a layer, made by calling its class")
    return module.train(model.training)


def _is_numbered(container: CONTAINERS) -> bool:
    names = list(container._modules)
    return not isinstance(container, nn.ModuleDict) and names == [*map(str, range(len(names)))]


def _new_name(container: CONTAINERS, path: str, name: str | None) -> str:
    if _is_numbered(container):
        if name is not None:
            raise ValueError(f"name is {name!r}, but the layers around {path!r} are numbered")
        return str(len(container))
    if not name or "." in name or name in container._modules:
        raise ValueError(
            f"name is {name!r}; the layers around {path!r} are named "
            f"{', '.join(container._modules)}, so give the new one a name of its own"
        )
    return name


def _refill(container: CONTAINERS, items: list[tuple[str, nn.Module]]) -> None:
    numbered = _is_numbered(container)
    container._modules.clear()
    for i, (name, module) in enumerate(items):
        container._modules[str(i) if numbered else name] = module
