"""Fitting weights to a model without surprises.

Nothing is copied before every key and shape was compared, and what did not fit is reported.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from tlbook.files import WeightsError, read_weights

StateDict = Mapping[str, Tensor]
Rules = Mapping[str, str] | Sequence[tuple[str, str]]


@dataclass(frozen=True, repr=False)
class LoadReport:
    """What became of every key when weights were loaded.

    Attributes:
        loaded: keys whose tensors were copied.
        missing: keys of the model that the weights lack; the model keeps its own tensors.
        unexpected: keys of the weights that the model lacks; ignored.
        mismatched: key to (shape in the weights, shape in the model); not copied.
        unwrapped: the key under which a nested checkpoint kept its weights, else None.
        ok: True if every key was copied and none was left over. A file that lacks only BatchNorm's
            counters of batches is not ok, although `strict` takes it.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    unwrapped: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the weights and the model agree on every key and shape."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        shapes = [f"{key} {a}, model {b}" for key, (a, b) in self.mismatched.items()]
        parts = [
            f"{len(self.loaded)} loaded",
            f"{len(self.missing)} missing{_first_of(self.missing)}",
            f"{len(self.unexpected)} unexpected{_first_of(self.unexpected)}",
            f"{len(self.mismatched)} mismatched{_first_of(shapes)}",
        ]
        return "; ".join(parts) + (f"; found under {self.unwrapped!r}" if self.unwrapped else "")

    def __repr__(self) -> str:
        return f"LoadReport({self})"


def load_weights(
    model: nn.Module,
    path_or_state_dict: str | Path | StateDict,
    *,
    strict: bool = True,
    strip_prefixes: str | Sequence[str] = (),
    rename: Rules | None = None,
) -> LoadReport:
    """Copy weights into a model after comparing every key and shape.

    No code runs from files. Weights nested under one key are unwrapped, as the report then says.

    Args:
        model: the model to fill; only its tensors' values change.
        path_or_state_dict: a `.safetensors` file, a file from `torch.save`, or a state_dict.
        strict: False copies what fits and leaves the rest; read the report. Counters of batches
            that an old file lacks are no misfit.
        strip_prefixes: taken off every key, such as ("module.", "_orig_mod.").
        rename: handed to `rename_keys` after that.

    Raises:
        WeightsError: if the file is damaged, holds more than tensors, or (strict) does not fit;
            the model is untouched then, and the error's `report` lists all that differs.

    Example:
        >>> wrapped = nn.Sequential(nn.Linear(2, 3)).state_dict()  # keys "0.weight", "0.bias"
        >>> load_weights(nn.Linear(2, 3), wrapped, strip_prefixes=("0.",)).ok
        True
    """
    is_dict = isinstance(path_or_state_dict, Mapping)
    source = "the state_dict" if is_dict else str(path_or_state_dict)
    content = path_or_state_dict if is_dict else read_weights(Path(path_or_state_dict))
    weights, unwrapped = _unwrap(content, source)
    weights = _rename(weights, {key: _strip(key, strip_prefixes) for key in weights})
    weights = weights if rename is None else rename_keys(weights, rename)
    report = _compare(model, weights, unwrapped)
    if strict and not _fits(report):
        what = f"{source} does not fit {type(model).__name__}, nothing was copied"
        raise WeightsError(f"{what}: {report}. {_advice(model, weights)}", report)
    model.load_state_dict({key: weights[key] for key in report.loaded}, strict=False)
    return report


def rename_keys(state_dict: StateDict, rules_or_mapping: Rules) -> dict[str, Tensor]:
    """Return the same tensors under new keys.

    Args:
        state_dict: key to tensor.
        rules_or_mapping: {old key: new key}, all renamed at once; or a list of (regular
            expression, replacement), each run over what the one before it made.

    Returns:
        A new dict in the same order; keys that nothing renames stay.

    Raises:
        WeightsError: if an old key is not there, a rule matches no key, or two keys would
            become the same.

    Example:
        >>> state = nn.Linear(2, 3).state_dict()
        >>> list(rename_keys(state, {"weight": "fc.weight"}))
        ['fc.weight', 'bias']
        >>> list(rename_keys(state, [(r"^", "fc."), (r"bias$", "shift")]))
        ['fc.weight', 'fc.shift']
    """
    names = {key: key for key in state_dict}
    if isinstance(rules_or_mapping, Mapping):
        for old, new in rules_or_mapping.items():
            if old not in names:
                raise WeightsError(f"there is no key {old!r} to rename; {_close_to(old, names)}")
            names[old] = new
        return _rename(state_dict, names)
    for pattern, replacement in rules_or_mapping:
        hits = [key for key, name in names.items() if re.search(pattern, name)]
        if not hits:
            literal = re.sub(r"[\\^$()]", "", pattern)
            close = _close_to(literal, names.values())
            raise WeightsError(f"the rule {pattern!r} matches no key; {close}")
        for key in hits:
            names[key] = re.sub(pattern, replacement, names[key])
    return _rename(state_dict, names)


def _rename(state_dict: StateDict, names: dict[str, str]) -> dict[str, Tensor]:
    """Apply {old key: new key}, one entry for every key, unless two keys would collide."""
    renamed: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for old, new in names.items():
        if new in origin:
            raise WeightsError(f"{origin[new]!r} and {old!r} would both become {new!r}")
        origin[new] = old
        renamed[new] = state_dict[old]
    return renamed


def _strip(key: str, prefixes: str | Sequence[str]) -> str:
    prefixes = [prefixes] if isinstance(prefixes, str) else prefixes
    # Wrappers nest in any order, so go round until none is left.
    while found := next((prefix for prefix in prefixes if prefix and key.startswith(prefix)), ""):
        key = key.removeprefix(found)
    return key


def _compare(model: nn.Module, weights: StateDict, unwrapped: str | None) -> LoadReport:
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    common = [key for key in expected if key in found]
    return LoadReport(
        loaded=tuple(key for key in common if found[key] == expected[key]),
        missing=tuple(key for key in expected if key not in found),
        unexpected=tuple(key for key in found if key not in expected),
        mismatched={
            key: (found[key], expected[key]) for key in common if found[key] != expected[key]
        },
        unwrapped=unwrapped,
    )


def _fits(report: LoadReport) -> bool:
    """Tell whether nothing that matters differs.

    Files from before PyTorch 0.4.1 lack BatchNorm's counters of batches, which nothing uses unless
    momentum is None; PyTorch lets them pass too.
    """
    lacking = [key for key in report.missing if not key.endswith("num_batches_tracked")]
    return not (lacking or report.unexpected or report.mismatched)


def _advice(model: nn.Module, weights: StateDict) -> str:
    """Return the advice to strip prefixes where all keys share them and they are to blame."""
    keys, prefixes = list(weights), []
    while len(firsts := {key.partition(".")[0] for key in keys}) == 1 and all(
        "." in k for k in keys
    ):
        prefixes.append(firsts.pop() + ".")
        keys = [key.partition(".")[2] for key in keys]
        if any(key in model.state_dict() for key in keys):
            shared = "".join(prefixes)
            return f'Every key begins with "{shared}": try strip_prefixes={tuple(prefixes)}'
    return "Rename keys with rename=..., or copy what fits with strict=False"


def _unwrap(content: object, source: str) -> tuple[StateDict, str | None]:
    """Return the weights inside a checkpoint and the key they were under."""
    if _is_state_dict(content):
        return content, None
    if not isinstance(content, Mapping):
        raise WeightsError(f"{source} holds a {type(content).__name__}, expected a state_dict")
    inner = [key for key, value in content.items() if value and _is_state_dict(value)]
    if len(inner) != 1:
        raise WeightsError(
            f"{source} is no state_dict: its keys are {_some(content)}, and "
            f"{_some(inner) if inner else 'none'} of them hold weights. Read it with "
            "torch.load(path, weights_only=True) and pass the part that you want"
        )
    return content[inner[0]], inner[0]


def _is_state_dict(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(v, Tensor) for v in value.values())


def _first_of(names: Sequence[str]) -> str:
    return f" ({_some(names)})" if names else ""


def _some(names: Iterable[str], limit: int = 6) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def _close_to(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, names, cutoff=0.4)
    return f"close keys: {', '.join(close)}" if close else f"the keys are {_some(names)}"
