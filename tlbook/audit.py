"""Look at a network after surgery: one forward pass, and everything that may have gone wrong.

Most mistakes of surgery raise no error: a layer is registered and never called, a block still
shares its weights with the donor, an optimizer trains a head that is gone. `audit` names them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tlbook.findings import Finding, Trial, all_findings, frozen_layers
from tlbook.freezing import NORMS, is_pinned
from tlbook.paths import CONTAINERS, split_path, unwrap

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Stage:
    """One step of forward: the path and the kind of a layer and the shape it gives."""

    path: str
    kind: str
    shape: Shape | str


@dataclass(frozen=True, repr=False)
class Audit:
    """What `audit` found; prints as a table, in a notebook as an HTML table.

    `findings` lists what is wrong and is empty in a sound network; `stages` gives the shapes in
    the order of forward; `frozen` and `trainable` count parameters, `layers` maps a kind of layer
    to how many of them are frozen and how many there are.
    """

    model: str
    findings: tuple[Finding, ...]
    stages: tuple[Stage, ...]
    frozen: int
    trainable: int
    layers: dict[str, tuple[int, int]]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def _tables(self) -> list[tuple[str, list[tuple[str, ...]]]]:
        found = [(f.check, f.place or "(network)", f.detail) for f in self.findings]
        kept = [(kind, f"{off} of {all_} frozen") for kind, (off, all_) in self.layers.items()]
        new = [b for a, b in pairwise((None, *self.stages)) if a is None or a.shape != b.shape]
        return [
            (f"{self.model}: {len(found) or 'no'} finding{'s' * (len(found) != 1)}", found),
            (f"parameters: {self.trainable:,} trainable, {self.frozen:,} frozen", kept),
            ("shapes, where they change", [(s.path, s.kind, str(s.shape)) for s in new]),
        ]

    def __str__(self) -> str:
        lines = []
        for title, rows in self._tables():
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            cells = [[c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in rows]
            lines += [title, *("  " + "  ".join(row).rstrip() for row in cells)]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        # Notebooks align cells to the right unless the cell itself says otherwise.
        left = 'style="text-align: left"'
        lines = []
        for title, rows in self._tables():
            lines.append(f'<tr><th colspan="3" {left}>{escape(title)}</th></tr>')
            for row in rows:
                cells = "".join(f"<td {left}>{escape(cell)}</td>" for cell in row)
                lines.append(f"<tr>{cells}</tr>")
        return f"<table>{''.join(lines)}</table>"


def audit(
    model: nn.Module,
    example: torch.Tensor | tuple[torch.Tensor, ...],
    optimizer: torch.optim.Optimizer | None = None,
    *,
    donors: Sequence[nn.Module] = (),
) -> Audit:
    """Run a network once and report what surgery may have broken.

    Args:
        model: the network; its mode, buffers, gradients and the random state stay as they are.
        example: a batch `(N, C, H, W)`, or a tuple of what forward takes; moved to the device of
            the network.
        optimizer: compares what it trains with what the network holds.
        donors: networks that blocks were taken from, searched for weights shared with them.

    Returns:
        The findings, the shapes at each stage and the counts. A forward that fails is a finding.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.Linear(2, 1))
        >>> print(audit(net, torch.zeros(1, 4)).findings[0].place)
        1
    """
    model = unwrap(model)  # hooks do not fire in compiled code
    with _as_found(model):
        _quiet(model)
        trial, stages = _run(model, _inputs(model, example))
        model.train()
        trial.moving = [path for path, module in model.named_modules() if module.training]
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    return Audit(
        model=type(model).__name__,
        findings=tuple(all_findings(model, trial, optimizer, donors)),
        stages=tuple(stages),
        frozen=frozen,
        trainable=sum(p.numel() for p in model.parameters()) - frozen,
        layers=frozen_layers(model),
    )


def _inputs(model: nn.Module, example: Any) -> tuple[Any, ...]:
    inputs = example if isinstance(example, tuple) else (example,)
    place = next((p.device for p in model.parameters()), torch.device("cpu"))
    return tuple(x.to(place) if isinstance(x, torch.Tensor) else x for x in inputs)


class _Used(TorchDispatchMode):
    """Notes the ids of all tensors that operations take, wherever the code took them from."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.ids.update(map(id, tree_leaves((args, kwargs))))
        return func(*args, **(kwargs or {}))


@contextmanager
def _as_found(model: nn.Module) -> Iterator[None]:
    """Bring back modes, buffers and the random state, whatever happens inside."""
    modes = {module: module.training for module in model.modules()}
    wanted = {module: module.train.wanted for module in modes if is_pinned(module)}
    buffers = [(m, *item) for m in modes for item in m.named_buffers(recurse=False)]
    values = [buffer.clone() for _, _, buffer in buffers]
    cuda = {p.device for p in model.parameters() if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(cuda), torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for module, mode in wanted.items():
            module.train.wanted = mode
        for (module, name, buffer), value in zip(buffers, values, strict=True):
            module._buffers[name] = buffer.copy_(value)


def _run(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Trial, list[Stage]]:
    trial, stages, running = Trial(), [Stage("input", "", _shape(inputs))], [("", inputs)]
    names = {module: path for path, module in model.named_modules()}

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        trial.called.add(names[module])
        running.append((names[module], args))

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        path, _ = running.pop()
        if _is_stage(model, path):
            stages.append(Stage(path, type(module).__name__, _shape(output)))

    hooks = [m.register_forward_pre_hook(enter) for m in names]
    hooks += [m.register_forward_hook(leave) for m in names]
    try:
        with _Used() as used:
            model(*inputs)
    except Exception as error:
        path, args = running[-1]
        given = f" for input {shape}" if (shape := _shape(args)) else ""
        what = f"{type(error).__name__}{given}: {error}".partition("\n")[0]
        trial.failure = Finding("forward fails", path, what)
    finally:
        for hook in hooks:
            hook.remove()
    trial.used = used.ids
    return trial, stages


def _quiet(model: nn.Module) -> None:
    """Stop layers from learning, dropping or refusing a batch of one.

    Blocks keep their mode, by which auxiliary heads run or rest.
    """
    for module in model.modules():
        if isinstance(module, NORMS) or next(module.children(), None) is None:
            module.training = False


def _is_stage(model: nn.Module, path: str) -> bool:
    """Tell whether this is a child of the network, or an item of a container among them."""
    parent, name = split_path(path)
    if not parent:
        return bool(name)
    return "." not in parent and isinstance(model.get_submodule(parent), CONTAINERS)


def _shape(value: Any) -> Shape | str:
    tensors = [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
    shapes = [tuple(tensor.shape) for tensor in tensors]
    return shapes[0] if len(shapes) == 1 else " ".join(map(str, shapes))
