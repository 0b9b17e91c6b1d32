"""The questions that `audit` asks, one function for each kind of mistake.

Each looks at a network that has just been run once and yields a finding with the place, what was
found and what it means; a sound network yields none.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tlbook.freezing import is_pinned
from tlbook.paths import CONTAINERS, is_auxiliary, split_path, topmost


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: the check that found it, the dotted path, and the details."""

    check: str
    place: str
    detail: str


@dataclass
class Trial:
    """What one forward pass showed.

    `called` and `moving` hold paths: modules that ran, and modules that `model.train()` puts in
    training mode. `used` holds the ids of all tensors that an operation took.
    """

    called: set[str] = field(default_factory=set)
    used: set[int] = field(default_factory=set)
    moving: list[str] = field(default_factory=list)
    failure: Finding | None = None


def all_findings(
    model: nn.Module,
    trial: Trial,
    optimizer: torch.optim.Optimizer | None,
    donors: Sequence[nn.Module],
) -> Iterator[Finding]:
    """Ask every question, the most urgent first."""
    if trial.failure:
        yield trial.failure
    yield from wrong_attributes(model)
    # What comes after the place of a failure could not be called.
    if not trial.failure:
        yield from never_called(model, trial)
    yield from shared_inside(model)
    for number, donor in enumerate(donors):
        yield from shared_with(model, donor, f"donor {number} ({_kind(donor)})")
    yield from half_frozen(model, trial)
    yield from frozen_at_the_surface(model)
    if optimizer is not None:
        yield from strangers(model, optimizer)


def never_called(model: nn.Module, trial: Trial) -> Iterator[Finding]:
    """Find layers that forward leaves out.

    A layer that is never called but whose tensors an operation took counts as called: attention
    hands its weights to a function. Auxiliary heads rest outside training. A layer without
    weights may rest in one block and run in its twin, as stochastic depth does where a block
    changes the shape.
    """
    modules = dict(model.named_modules())
    roles = {_role(modules, path) for path in trial.called}
    idle = {}
    for path, module in modules.items():
        below = f"{path}." if path else ""
        ran = path in trial.called or any(other.startswith(below) for other in trial.called)
        ran = ran or any(id(t) in trial.used for t in (*module.parameters(), *module.buffers()))
        weightless = next(module.parameters(), None) is None
        rests = is_auxiliary(path) and not model.training
        rests = rests or (weightless and _role(modules, path) in roles)
        idle[path] = not ran and not rests and any(map(_does_something, module.modules()))
    for path in topmost(idle):
        yield Finding("never called", path, f"forward does not call this {_kind(modules[path])}")


def _role(modules: dict[str, nn.Module], path: str) -> tuple[type, str]:
    parent, name = split_path(path)
    return type(modules[parent]), name


def _does_something(module: nn.Module) -> bool:
    nothing = isinstance(module, nn.Identity | CONTAINERS) or getattr(module, "p", None) == 0
    return bool(_own(module)) or (not nothing and next(module.children(), None) is None)


def shared_inside(model: nn.Module) -> Iterator[Finding]:
    """Find layers of one network that hold the same parameters."""
    owners: dict[object, str] = {}
    pairs: dict[tuple[str, str], None] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for parameter in _own(module):
            first = owners.setdefault(_key(parameter), path)
            if first != path:
                pairs[_without_common_end(first, path)] = None
    for first, second in pairs:
        yield Finding("shared weights", second, f"the same parameters as {first}")


def shared_with(model: nn.Module, donor: nn.Module, name: str) -> Iterator[Finding]:
    """Find layers that hold the same parameters as a donor."""
    theirs = {_key(p): path for path, module in donor.named_modules() for p in _own(module)}
    pairs: dict[tuple[str, str], None] = {}
    for path, module in model.named_modules():
        for parameter in _own(module):
            if _key(parameter) in theirs:
                pairs[_without_common_end(theirs[_key(parameter)], path)] = None
    if pairs:
        there, here = zip(*pairs, strict=True)
        yield Finding(
            "shared weights", _few(here), f"the same parameters as {_few(there)} of {name}"
        )


def _without_common_end(first: str, second: str) -> tuple[str, str]:
    """Turn layer3.0.conv1 and block.0.conv1 into layer3 and block."""
    while "." in first and "." in second and split_path(first)[1] == split_path(second)[1]:
        first, second = split_path(first)[0], split_path(second)[0]
    return first, second


def half_frozen(model: nn.Module, trial: Trial) -> Iterator[Finding]:
    """Find BatchNorm layers in frozen parts that would go on averaging."""
    modules = dict(model.named_modules())
    moving = []
    for path in trial.moving:
        norm = modules[path]
        if isinstance(norm, _NormBase) and norm.running_mean is not None and norm.momentum != 0:
            # One without weights of its own is frozen when its block is.
            weights = _own(norm) or list(modules[split_path(path)[0]].parameters())
            if weights and not any(p.requires_grad for p in weights):
                moving.append(path)
    if moving:
        yield Finding(
            "BatchNorm moves",
            _few(moving),
            "frozen, but train() lets its statistics move; use freeze",
        )


def frozen_at_the_surface(model: nn.Module) -> Iterator[Finding]:
    """Find a kind of layer that is frozen among the children only, as a loop over them does."""
    for kind, (off, all_) in frozen_layers(model).items():
        surface = [m for m in model.children() if _kind(m) == kind and _own(m)]
        by_hand = [m for m in surface if _is_off(m) and not is_pinned(m)]
        if by_hand and len(by_hand) == len(surface) == off < all_:
            places = [path for path, m in model.named_children() if m in by_hand]
            detail = f"{off} of {all_} {kind} layers frozen; children() sees none inside blocks"
            yield Finding("partly frozen", _few(places), detail)


def frozen_layers(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Count the frozen layers and all layers of each kind that owns parameters."""
    counts: dict[str, tuple[int, int]] = {}
    for module in model.modules():
        if _own(module):
            off, all_ = counts.get(_kind(module), (0, 0))
            counts[_kind(module)] = (off + _is_off(module), all_ + 1)
    return counts


def strangers(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Finding]:
    """Find parameters that only the optimizer or only the network holds."""
    held = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    gone = [p for key, p in held.items() if key not in {id(p) for p in model.parameters()}]
    if gone:
        shapes = _few([str(tuple(p.shape)) for p in gone])
        yield Finding(
            "not in the network", "(optimizer)", f"it trains {shapes}, which is no layer's"
        )
    left = {
        path: any(p.requires_grad for p in module.parameters())
        and all(id(p) not in held for p in module.parameters())
        for path, module in model.named_modules()
    }
    if paths := topmost(left):
        yield Finding("not in the optimizer", _few(paths), "trainable, but no step will change it")


def wrong_attributes(model: nn.Module) -> Iterator[Finding]:
    """Find attributes that were changed without the weights they describe."""
    for path, module in model.named_modules():
        shape = getattr(getattr(module, "weight", None), "shape", ())
        for name, true in _described(module):
            said = getattr(module, name)
            if said != true:
                detail = f"{name} says {said}, the weights {tuple(shape)} make it {true}"
                yield Finding("attribute", path, detail)


def _described(module: nn.Module) -> Iterator[tuple[str, object]]:
    weight = getattr(module, "weight", None)
    shape = tuple(weight.shape) if isinstance(weight, torch.Tensor) else ()
    if isinstance(module, _ConvNd):
        ends = ("in_channels", "out_channels")
        first, second = ends if isinstance(module, _ConvTransposeNd) else reversed(ends)
        yield from ((first, shape[0]), (second, shape[1] * module.groups))
        yield "kernel_size", shape[2:]
    elif isinstance(module, nn.Linear):
        yield from (("out_features", shape[0]), ("in_features", shape[1]))
    elif isinstance(module, nn.Embedding):
        yield from (("num_embeddings", shape[0]), ("embedding_dim", shape[1]))
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm) and shape:
        yield "normalized_shape", shape
    elif isinstance(module, nn.GroupNorm) and shape:
        yield "num_channels", shape[0]
    elif isinstance(module, _NormBase) and shape:
        yield "num_features", shape[0]


def _own(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters(recurse=False))


def _kind(module: nn.Module) -> str:
    return type(module).__name__


def _is_off(module: nn.Module) -> bool:
    return not any(p.requires_grad for p in _own(module))


def _key(tensor: torch.Tensor) -> object:
    """Tell tensors apart by their memory; those on the meta device have none."""
    if tensor.device.type == "meta" or tensor.numel() == 0:
        return id(tensor)
    return tensor.device, tensor.data_ptr()


def _few(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
