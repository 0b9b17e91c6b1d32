"""Whether a candidate, a dataset or a setting is still what it was when a fold was kept.

A finished fold may be used again only where nothing has changed, and a name says little about
that. A network is told by what it does, a function by its code and the values it uses.
"""

import functools
import inspect
import re
import sysconfig
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from tlbook.fingerprints import digest
from tlbook.splits import class_names, targets_of

_PLAIN = (str, int, float, bool, bytes, type(None), torch.dtype, torch.device)
# A library's own functions are told by their names: its version stands for what they do.
_INSTALLED = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))


def image_digests(dataset: Dataset) -> list[str]:
    """Return a hash of every image of a dataset, the same for images that are the same.

    Images that lie in files are compared as files, all others as the dataset gives them.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> a, b, c = image_digests(TensorDataset(torch.tensor([[1.0], [2.0], [1.0]])))
        >>> a == c, a == b
        (True, False)
    """
    return [digest(_content(dataset, index)) for index in range(len(dataset))]


def dataset_digest(dataset: Dataset, images: list[str]) -> str:
    """Return a hash of a dataset: its images in order, labels, class names and transform."""
    whole = dataset
    while isinstance(whole, Subset):
        whole = whole.dataset
    transform = describe(getattr(whole, "transform", None))
    return digest(images, targets_of(dataset), class_names(dataset), transform)


def network_digest(model: nn.Module, images: Tensor, targets: Tensor) -> str:
    """Return a hash of what a network is and does; `alone` makes it the same each time.

    Its layers, its weights, which of them are frozen, its outputs and its gradients on one batch
    go into it. So a change in `forward` counts, too, which changes no shape and no name.

    Args:
        model: trained for one step that is never taken; its gradients are left behind.
        images: a batch `(N, C, H, W)`, N >= 2.
        targets: class indices `(N,)`.
    """
    before = digest(repr(model), dict(model.state_dict()))
    outputs = model.train()(images)
    nn.functional.cross_entropy(outputs.float(), targets).backward()
    trained = {
        name: "frozen" if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    return digest(before, outputs, trained)


def describe(thing: Any) -> str:
    """Describe a value, a function or a callable object, so that what differs reads differently.

    Functions are told by their code and the values they use, never by name or address.

    Example:
        >>> describe(lambda x: x + 1) == describe(lambda x: x + 1)
        True
        >>> describe(lambda x: x + 1) == describe(lambda x: x + 2)
        False
    """
    return _describe(thing, {})


def _describe(thing: Any, seen: dict[int, Any]) -> str:
    if isinstance(thing, _PLAIN):
        return repr(thing)
    if isinstance(thing, Tensor | np.ndarray):
        return digest(thing)
    if inspect.isclass(thing) or inspect.isbuiltin(thing) or inspect.ismodule(thing):
        return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', thing)}"
    if id(thing) in seen:
        return "seen before"
    seen[id(thing)] = thing  # kept, or another thing could get its number
    if isinstance(thing, Mapping):
        return _described([item for pair in thing.items() for item in pair], seen)
    if isinstance(thing, set | frozenset):
        return str(sorted(_describe(item, seen) for item in thing))
    if isinstance(thing, list | tuple):
        return _described(thing, seen)
    if isinstance(thing, functools.partial):
        return "partial" + _described([thing.func, thing.args, thing.keywords], seen)
    if isinstance(thing, types.MethodType):
        return _described([thing.__func__, thing.__self__], seen)
    if isinstance(thing, types.FunctionType):
        return _describe_function(thing, seen)
    return _describe_object(thing, seen)


def _described(things: Iterable[Any], seen: dict[int, Any]) -> str:
    return f"({', '.join(_describe(thing, seen) for thing in things)})"


def _describe_object(thing: Any, seen: dict[int, Any]) -> str:
    """Describe an object by its attributes and its class's own methods.

    A repr is not enough: torchvision's Lambda, for one, shows nothing of its function.
    """
    attributes = getattr(thing, "__dict__", None)
    if not attributes:
        return re.sub(r" at 0x\w+", "", repr(thing))
    functions = [
        value
        for base in type(thing).__mro__
        for value in vars(base).values()
        if isinstance(value, types.FunctionType) and not _is_installed(value)
    ]
    return type(thing).__qualname__ + _described([attributes, functions], seen)


def _is_installed(function: types.FunctionType) -> bool:
    return function.__code__.co_filename.startswith(_INSTALLED)


def _describe_function(function: types.FunctionType, seen: dict[int, Any]) -> str:
    if _is_installed(function):
        return f"{function.__module__}.{function.__qualname__}"
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    used = [function.__globals__.get(name) for name in function.__code__.co_names]
    values = [function.__defaults__, function.__kwdefaults__, cells, used]
    return _code(function.__code__, seen) + _described(values, seen)


def _code(code: types.CodeType, seen: dict[int, Any]) -> str:
    """Return the instructions of a function and of those inside it, without file and line."""
    constants = [
        _code(value, seen) if isinstance(value, types.CodeType) else _describe(value, seen)
        for value in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"


def _content(dataset: Dataset, index: int) -> bytes | np.ndarray:
    while isinstance(dataset, Subset):
        dataset, index = dataset.dataset, dataset.indices[index]
    if hasattr(dataset, "samples"):
        return Path(dataset.samples[index][0]).read_bytes()
    return np.asarray(dataset[index][0])
