"""Freeze parts of a network for good, and give each part its own learning rate.

`requires_grad = False` is half a freeze: BatchNorm keeps averaging, dropout keeps dropping, and an
optimizer that finds an old gradient keeps moving the weight. Here a frozen part is a fixed function
until you unfreeze it, whatever the training loop does.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from tlbook.paths import CONTAINERS, find_module, is_auxiliary, suggest, topmost, unwrap

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


class _Pinned:
    """Stands in for the `train` method of a frozen module.

    A loop switches modes with `model.train()`, which calls `train` on every child, so an instance
    attribute of that name is met by every loop. Unlike a hook it is never traced by
    `torch.compile`, unlike a new class it leaves `type(module)` and pickling alone, and it is
    neither parameter nor buffer nor module, so no key of the state_dict changes. It remembers
    what unfreezing has to bring back.
    """

    def __init__(self, module: nn.Module, weights: list[str]) -> None:
        self.module, self.weights, self.wanted = module, weights, module.training

    def __call__(self, mode: bool = True) -> nn.Module:
        module, self.wanted = self.module, mode
        type(module).train(module, mode)
        # Code in this module's own forward may serve a part inside that is not frozen, such as a
        # head that came later; with nothing of that kind it stays in evaluation mode.
        module.training = any(child.training for child in module.children())
        return module


def freeze(model: nn.Module, *names: str) -> nn.Module:
    """Turn parts of a network into fixed functions that no training loop changes.

    Gradients stop and those already there are cleared, so that momentum and weight decay have
    nothing to act on. The part stays in evaluation mode, also after `model.train()`: BatchNorm
    uses its statistics and keeps them, dropout lets everything through, so the features of one
    image are always the same and may be computed once. An LBFGS optimizer made before freezing
    still holds steps of the past: make a new one.

    Args:
        model: any module; it is changed in place, the keys of its state_dict are not.
        names: dotted paths of the parts to freeze; none freezes the whole network.

    Returns:
        The same network.

    Raises:
        ValueError: if a name is not there, naming the nearest; nothing is frozen then.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        >>> freeze(net, "0", "1").train()[1].training, len(trainable_parameters(net))
        (False, 2)
    """
    parts = _parts(model, names)
    # A weight shared with a frozen module is off already, yet freezing is what turned it off.
    held = {id(weight) for module in model.modules() for weight in _held(module)}
    for module in parts:
        if not is_pinned(module):
            own = module.named_parameters(recurse=False)
            module.train = _Pinned(module, [n for n, p in own if p.requires_grad or id(p) in held])
        module.training = False
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
            parameter.grad = None
    return model


def unfreeze(model: nn.Module, *names: str) -> nn.Module:
    """Undo `freeze`: what trained before trains again, in the mode the network is in.

    Parameters that were off before `freeze` stay off, and so do those shared with a part that is
    still frozen.

    Args:
        model: any module; it is changed in place.
        names: dotted paths of the parts to unfreeze; none unfreezes the whole network.

    Returns:
        The same network.

    Raises:
        ValueError: if a name is not there, naming the nearest; nothing is unfrozen then.

    Example:
        >>> net = freeze(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))
        >>> frozen_names(unfreeze(net, "1"))
        ['0']
    """
    thawed = []
    for module in _parts(model, names):
        if is_pinned(module):
            thawed += _held(module)
            wanted = module.train.wanted
            del module.train
            module.training = wanted
    held = {id(weight) for module in model.modules() for weight in _held(module)}
    for parameter in thawed:
        parameter.requires_grad_(id(parameter) not in held)
    return model


def is_pinned(module: nn.Module) -> bool:
    """Tell whether `freeze` holds this very module, whatever may have come into it since.

    Example:
        >>> is_pinned(freeze(nn.Linear(2, 2))), is_pinned(nn.Linear(2, 2).requires_grad_(False))
        (True, False)
    """
    return isinstance(module.__dict__.get("train"), _Pinned)


def frozen_names(model: nn.Module) -> list[str]:
    """Name the largest frozen parts that hold weights or statistics.

    Args:
        model: any module.

    Returns:
        Dotted paths in the order of registration; "" alone when the whole network is frozen.
        Parameters that are only switched off by hand do not count.

    Example:
        >>> frozen_names(freeze(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), "0"))
        ['0']
    """
    return topmost({path: _is_frozen(m) for path, m in unwrap(model).named_modules()})


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """List the parameters that training would change, each once, for an optimizer.

    Args:
        model: any module.

    Returns:
        The parameters with `requires_grad`, in the order of registration.

    Example:
        >>> len(trainable_parameters(freeze(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), "0")))
        2
    """
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def param_groups(
    model: nn.Module,
    rates: Mapping[str, float] | None = None,
    *,
    lr: float | None = None,
    weight_decay: float | None = None,
    layer_decay: float | None = None,
    no_decay_on_norms: bool = False,
) -> list[dict[str, Any]]:
    """Sort the trainable parameters into groups for an optimizer, each in exactly one.

    Args:
        model: any module.
        rates: learning rates by prefix of dotted names; the longest that fits counts.
        lr: the rate of all others; None leaves it to the optimizer, as with `weight_decay`.
        layer_decay: multiplies `lr` once for every layer between a parameter and the output.
        no_decay_on_norms: whether normalisation layers get no weight decay.

    Returns:
        Groups with "name", "params" and settings; frozen parameters are in none.

    Raises:
        ValueError: if a prefix fits no parameter, or `layer_decay` comes without `lr`.

    Example:
        >>> param_groups(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), {"0": 0.1})[0]["lr"]
        0.1
    """
    chosen = _layers(unwrap(model), lr, layer_decay) | _prefixed(unwrap(model), rates or {})
    norms = {id(p) for m in model.modules() if isinstance(m, NORMS) for p in m.parameters()}
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for parameter in trainable_parameters(model):
        name, rate = chosen.get(id(parameter), ("rest", lr))
        spared = no_decay_on_norms and id(parameter) in norms
        label, decay = (f"{name}, norms", 0.0) if spared else (name, weight_decay)
        group = {"name": label, "params": []} | _given(lr=rate, weight_decay=decay)
        groups.setdefault((name, spared), group)["params"].append(parameter)
    grouped = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in trainable_parameters(model))
    return list(groups.values())


def _parts(model: nn.Module, names: tuple[str, ...]) -> list[nn.Module]:
    tops = [find_module(model, name) for name in names or ("",)]
    return list(dict.fromkeys(module for top in tops for module in top.modules()))


def _held(module: nn.Module) -> list[nn.Parameter]:
    if not is_pinned(module):
        return []
    return [p for n, p in module.named_parameters(recurse=False) if n in module.train.weights]


def _is_frozen(module: nn.Module) -> bool:
    return (
        all(is_pinned(part) for part in module.modules())
        and not trainable_parameters(module)
        and any(True for _ in (*module.parameters(), *module.buffers()))
    )


def _prefixed(model: nn.Module, rates: Mapping[str, float]) -> dict[int, tuple[str, float]]:
    """Give the longest prefix that fits and its rate for each parameter, by its id."""
    named = [(n, id(p)) for n, p in model.named_parameters(remove_duplicate=False)]
    found: dict[int, tuple[str, float]] = {}
    for prefix in sorted(rates, key=len):
        fitting = {key for n, key in named if f"{n}.".startswith(f"{prefix}.")}
        if not fitting:
            paths = [path for path, _ in model.named_modules() if path] + [n for n, _ in named]
            kind = type(model).__name__
            raise ValueError(f"{kind} has no parameter under {prefix!r}; {suggest(prefix, paths)}")
        found |= dict.fromkeys(fitting, (prefix, rates[prefix]))
    return found


def _given(**settings: float | None) -> dict[str, float]:
    return {key: value for key, value in settings.items() if value is not None}


def _layers(
    model: nn.Module, lr: float | None, layer_decay: float | None
) -> dict[int, tuple[str, float]]:
    """Give the name of its layer and the decayed rate for each parameter, by its id."""
    if layer_decay is None:
        return {}
    if lr is None:
        raise ValueError("layer_decay multiplies lr, which is None; expected a learning rate")
    layers: list[tuple[str, list[nn.Parameter]]] = []
    auxiliary: list[nn.Parameter] = []
    half = sum(p.numel() for p in model.parameters()) / 2
    for path, module in _open(model, "", half):
        weights = list(module.parameters())
        if is_auxiliary(path):
            auxiliary += weights
        elif layers and isinstance(module, NORMS):
            layers[-1][1].extend(weights)
        elif weights:
            layers.append((path, weights))
    layers[-1][1].extend(auxiliary)
    rates = {path: lr * layer_decay**i for i, (path, _) in enumerate(reversed(layers))}
    # What an opened module owns itself, such as a class token, is as early as the first layer.
    found = {id(p): (layers[0][0], rates[layers[0][0]]) for p in model.parameters()}
    return found | {id(p): (path, rates[path]) for path, weights in layers for p in weights}


def _open(module: nn.Module, prefix: str, half: float) -> Iterator[tuple[str, nn.Module]]:
    """List the layers of a network in the sense of layer-wise decay.

    Those are its children, where a container stands for its items, and a child with more than
    half of all weights, such as the encoder of a ViT, for its own children.
    """
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        items = isinstance(child, CONTAINERS) and not isinstance(module, CONTAINERS)
        trunk = sum(p.numel() for p in child.parameters()) > half
        if (items or trunk) and next(child.children(), None) is not None:
            yield from _open(child, f"{path}.", half)
        else:
            yield path, child
