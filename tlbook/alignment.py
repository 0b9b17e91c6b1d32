"""Two networks laid side by side: which layers stayed, which came, which went.

Layers are matched by what they are and by their order, as lines of text are in a diff; a layer
whose path has moved is thereby still known.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import groupby
from operator import itemgetter
from zlib import crc32

import torch
from torch import Tensor, nn

from tlbook.inspection import summary
from tlbook.paths import unwrap


@dataclass(frozen=True)
class Leaf:
    """One layer, or a parameter that a block owns: its path, how it prints, its output's shape.

    `weights` tells two layers apart that print the same; for a parameter that a block owns, `block`
    sums up the block, since such parameters often begin with the same values.
    """

    path: str
    text: str
    shape: str
    parameters: int
    frozen: bool
    weights: int | None
    block: int | None = None


@dataclass(frozen=True)
class Side:
    """One of the two networks: its layers in order, and its totals; None where not known."""

    name: str
    leaves: tuple[Leaf, ...]
    kinds: dict[str, str]
    parameters: int
    trainable: int
    mult_adds: int | None
    output: str | None
    failure: str | None


@dataclass(frozen=True)
class Block:
    """Neighbouring layers as one block: where it is, what it is, its parameters, its output."""

    path: str
    text: str
    parameters: int
    shape: str


@dataclass(frozen=True)
class Row:
    """A block before, a block after, or both; mark is "same", "changed", "removed" or "added".

    A note says what is different about a layer that prints the same.
    """

    mark: str
    before: Block | None
    after: Block | None
    note: str = ""


def measure(model: nn.Module, input_size: Sequence[int]) -> Side:
    """Run a network once on zeros of that size and note what it is made of.

    A forward that fails is told in the output's place; nothing of the network is changed.
    """
    model = unwrap(model)
    shapes, mult_adds, output, failure = {}, None, None, None
    try:
        table = summary(model, input_size)
        shapes = {row.layer_id: _words(row.output_size) for row in table.summary_list}
        mult_adds, output = table.total_mult_adds, shapes[id(model)]
    except RuntimeError as error:
        cause = error.__cause__ or error
        failure = f"{type(cause).__name__}: {cause}".partition("\n")[0]
    return Side(
        name=type(model).__name__,
        leaves=tuple(_leaves(model, shapes)),
        kinds={path: type(module).__name__ for path, module in model.named_modules()},
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        mult_adds=mult_adds,
        output=output,
        failure=failure,
    )


def _leaves(model: nn.Module, shapes: dict[int, str]) -> Iterator[Leaf]:
    """Yield modules without modules inside, and parameters that other modules own themselves."""
    for path, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if next(module.children(), None) is None:
            yield _leaf(path, repr(module), shapes.get(id(module), ""), list(own.values()))
            continue
        block = _checksum(list(module.parameters())) if own and path else None
        for name, parameter in own.items():
            where = f"{path}.{name}" if path else name
            leaf = _leaf(where, f"Parameter{tuple(parameter.shape)}", "", [parameter])
            yield replace(leaf, block=block)


def _leaf(path: str, text: str, shape: str, own: list[Tensor]) -> Leaf:
    frozen = bool(own) and not any(tensor.requires_grad for tensor in own)
    return Leaf(path, text, shape, sum(t.numel() for t in own), frozen, _checksum(own))


def _checksum(tensors: list[Tensor]) -> int | None:
    """Return a number that differs where weights do; tensors on the meta device have none."""
    if any(tensor.device.type == "meta" for tensor in tensors):
        return None
    total = 0
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        total = crc32(flat.view(torch.uint8).numpy(), total)
    return total


def _words(size: Sequence[int]) -> str:
    return str(tuple(size)) if size else ""


def rows(before: Side, after: Side) -> Iterator[Row]:
    """Yield the blocks of both networks in order: what stayed, by child, and each change.

    Layers are matched by print and weights first; what is left between them, by print alone.
    """
    for old, new, same in _matched(before.leaves, after.leaves, _look):
        if same:
            yield from _kept(before, after, old, new)
            continue
        for fewer, others, alike in _matched(old, new, lambda x: x.text):
            if alike:
                yield from _kept(before, after, fewer, others)
            else:
                yield from _changed(_units(before, fewer), _units(after, others))


def _look(leaf: Leaf) -> tuple[str, int | None, int | None]:
    return leaf.text, leaf.weights, leaf.block


def _matched(
    old: Sequence[Leaf], new: Sequence[Leaf], key: Callable[[Leaf], Hashable]
) -> Iterator[tuple[Sequence[Leaf], Sequence[Leaf], bool]]:
    keys = [[key(leaf) for leaf in leaves] for leaves in (old, new)]
    for tag, i, i_end, j, j_end in SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
        yield old[i:i_end], new[j:j_end], tag == "equal"


def _kept(before: Side, after: Side, old: Sequence[Leaf], new: Sequence[Leaf]) -> Iterator[Row]:
    places: list[tuple[str, str, str]] = []
    for was, now in zip(old, new, strict=True):
        here, note = (was.path.split(".")[0], now.path.split(".")[0]), _note(was, now)
        # A layer without weights cannot be frozen: it goes with its neighbours.
        if not now.parameters and places and places[-1][:2] == here:
            note = places[-1][2]
        places.append((*here, note))
    for (*_, note), run in groupby(zip(places, old, new, strict=True), itemgetter(0)):
        _, was, now = zip(*run, strict=True)
        yield Row("same", _block(before, was), _block(after, now), note)


def _note(old: Leaf, new: Leaf) -> str:
    notes = {
        "renumbered": old.path != new.path,
        "other weights": old.weights != new.weights,
        "now frozen": new.frozen and not old.frozen,
        "no longer frozen": old.frozen and not new.frozen,
    }
    return ", ".join(note for note, holds in notes.items() if holds)


def _changed(old: dict[str, Block], new: dict[str, Block]) -> Iterator[Row]:
    for path, block in old.items():
        yield Row("changed" if path in new else "removed", block, new.get(path))
    for path, block in new.items():
        if path not in old:
            yield Row("added", None, block)


def _units(side: Side, leaves: Sequence[Leaf]) -> dict[str, Block]:
    """Name layers that come or go by the largest module that comes or goes whole."""
    here = {leaf.path for leaf in leaves}
    units: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        units.setdefault(_whole(side, leaf.path, here), []).append(leaf)
    return {path: _block(side, run) for path, run in units.items()}


def _whole(side: Side, path: str, here: set[str]) -> str:
    names = path.split(".")
    for end in range(1, len(names)):
        outer = ".".join(names[:end])
        inside = {leaf.path for leaf in side.leaves if leaf.path.startswith(f"{outer}.")}
        if len(inside) > 1 and inside <= here:
            return outer
    return path


def _block(side: Side, run: Sequence[Leaf]) -> Block:
    """Join neighbouring layers: one as it prints, a whole module by its name, others by ends."""
    first, last, size = run[0], run[-1], sum(leaf.parameters for leaf in run)
    if len(run) == 1:
        return Block(first.path, first.text, size, first.shape)
    whole = {_whole(side, leaf.path, {leaf.path for leaf in run}) for leaf in run}
    if len(whole) == 1:
        path = whole.pop()
        return Block(path, f"{side.kinds[path]}, {len(run)} layers", size, last.shape)
    return Block(f"{first.path} … {last.path}", f"{len(run)} layers", size, last.shape)
