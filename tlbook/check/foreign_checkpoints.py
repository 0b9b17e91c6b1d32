"""Checks of the exercises in *foreign checkpoints*: fitting other people's files to a network.

Every answer that is a function is tried on weights whose names or shapes invite the usual bug.
"""

import copy
import re
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import DenseNet, mobilenet_v3_small, shufflenet_v2_x0_5

from tlbook.check.grading import NotYet, exercise, expect_function, expect_table
from tlbook.statedict import rename_keys

# squeezenet1_1: 26 convolutions with a weight and a bias each, the last of them the head.
SQUEEZENET = {"loaded": 50, "missing": 0, "unexpected": 0, "mismatched": 2}
SQUEEZENET_HINTS = {
    "loaded": {
        "_52": "two of these have another shape: the head's, for 5 classes and for 10.",
        "_51": "the head has two tensors, and the shapes of both depend on the classes.",
        "_0": "the prefix is stripped, so that the names agree.",
        "_26": "those are layers; each has two tensors.",
        "_25": "those are layers; each has two tensors.",
        "_48": "only the last layer depends on the number of classes.",
    },
    "missing": {
        "_1": "the head's keys are there, with other shapes: they count as mismatched.",
        "_2": "the head's keys are there, with other shapes: they count as mismatched.",
        "_52": "the prefix is stripped, so that the names agree.",
    },
    "unexpected": {
        "_1": "the model has the head's keys too, with other shapes: they count as mismatched.",
        "_2": "the model has the head's keys too, with other shapes: they count as mismatched.",
        "_52": "the prefix is stripped, so that the names agree.",
    },
    "mismatched": {
        "_1": "the head has a weight and a bias, and both have one row for each class.",
        "_0": "load_weights lists other shapes here, also with strict=False.",
    },
}
KERAS_NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


@exercise('Predict the report: answer = {"loaded": ..., "missing": ..., ...}.')
def foreign_checkpoints_1(answer: Any) -> None:
    """A report predicted from the architecture alone."""
    expect_table(answer, SQUEEZENET, SQUEEZENET_HINTS)


@exercise("Find the rules: answer = a list of (regular expression, replacement).")
def foreign_checkpoints_2(answer: Any) -> None:
    """DenseNet's old names, in which the number stands behind a dot of its own."""
    if isinstance(answer, dict):
        raise NotYet("a dictionary renames whole keys; give a list of pairs, which are searched.")
    is_list = isinstance(answer, list | tuple) and len(answer) > 0
    if not is_list or not all(isinstance(r, list | tuple) and len(r) == 2 for r in answer):
        raise NotYet("expected a list of pairs (regular expression, replacement).")
    if any(re.search(r"[\x00-\x1f]", str(text)) for rule in answer for text in rule):
        raise NotYet('Python has turned a backslash into another character: write r"..." strings.')
    with torch.random.fork_rng(devices=[]):
        model = DenseNet(2, (2, 2), num_init_features=4, bn_size=2, num_classes=3)
    new = model.state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))", r"\1.", key): new[key] for key in new}
    found = rename_keys(old, [tuple(rule) for rule in answer])
    for before, after, right in zip(old, found, new, strict=True):
        if after != right:
            same = "stays" if after == before else f"becomes {after}"
            raise NotYet(f"{before} {same}, expected {right}.")


@exercise("Take out one encoder: answer = a function of a checkpoint.")
def foreign_checkpoints_3(answer: Any) -> None:
    """The query encoder of a self-supervised run, without its projection head."""
    expect_function(answer, "a checkpoint")
    with torch.random.fork_rng(devices=[]):
        odd = nn.ModuleDict({"module": nn.Linear(2, 3), "encoder_k": nn.Linear(3, 2)})
        odd["fc"], odd["gate"] = nn.Linear(2, 2), nn.ModuleDict({"fc": nn.Linear(2, 2)})
        pairs = [(shufflenet_v2_x0_5(), shufflenet_v2_x0_5()), (odd, copy.deepcopy(odd))]
    nn.init.zeros_(pairs[1][1]["module"].weight)
    for query, key_encoder in pairs:
        state = {"module.queue": torch.zeros(2, 8)}
        for name, encoder in (("encoder_k", key_encoder), ("encoder_q", query)):
            state |= {f"module.{name}.{key}": t for key, t in encoder.state_dict().items()}
        found = answer({"epoch": 200, "state_dict": state, "optimizer": {"state": {}}})
        right = {k: t for k, t in query.state_dict().items() if not k.startswith("fc.")}
        if isinstance(found, dict) and not found:
            raise NotYet("no key was found; the weights stand under checkpoint['state_dict'].")
        _expect_tensors(found, right, f"for a {type(query).__name__}")


@exercise("Load what fits, but not nothing: answer = a function of a model and weights.")
def foreign_checkpoints_4(answer: Any) -> None:
    """Partial loading that names what it left, and refuses to load next to nothing."""
    expect_function(answer, "a model and weights")
    with torch.random.fork_rng(devices=[]):
        model, donor = mobilenet_v3_small(num_classes=7), mobilenet_v3_small(num_classes=5)
    own, weights = copy.deepcopy(model.state_dict()), donor.state_dict()
    weights = {key: tensor + 1 for key, tensor in weights.items()} | {"extra": torch.zeros(1)}
    del weights["features.0.0.weight"]
    kept = ["features.0.0.weight", "classifier.3.weight", "classifier.3.bias"]
    found = answer(model, dict(weights))
    if not isinstance(found, list | tuple | set):
        raise NotYet(f"expected a list of keys, got {type(found).__name__}.")
    if set(found) != set(kept):
        raise NotYet(
            f"expected the {len(kept)} keys of the model that were not copied, got {len(found)} "
            f"keys, of which {len(set(found) & set(kept))} are right."
        )
    right = {key: own[key] if key in kept else weights[key] for key in own}
    _expect_tensors(dict(model.state_dict()), right, "after loading")
    _expect_refusal(answer, model, {f"module.{key}": t - 1 for key, t in weights.items()})
    few = dict(list(own.items())[: len(own) // 2 - 1])
    _expect_refusal(answer, model, {key: tensor + 5 for key, tensor in few.items()})


@exercise("Convert the file: answer = a function of a dictionary of Keras weights.")
def foreign_checkpoints_5(answer: Any) -> None:
    """Names and layouts of Keras, on kernels whose shapes give nothing away."""
    expect_function(answer, "a dictionary of Keras weights")
    shapes = {
        "stem/conv/kernel": (3, 3, 3, 3),
        "stem/conv/bias": (3,),
        "stem/bn/gamma": (3,),
        "stem/bn/beta": (3,),
        "stem/bn/moving_mean": (3,),
        "stem/bn/moving_variance": (3,),
        "head/kernel": (3, 3),
        "head/bias": (3,),
    }
    keras = {name: torch.arange(3.0 ** len(shapes[name])).reshape(shapes[name]) for name in shapes}
    right = {}
    for number, (name, tensor) in enumerate(keras.items()):
        tensor += 100 * number
        path, _, last = name.rpartition("/")
        order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[tensor.ndim]
        right[f"{path.replace('/', '.')}.{KERAS_NAMES.get(last, last)}"] = tensor.permute(order)
    _expect_tensors(answer(dict(keras)), right, "of the converted file")


def _expect_tensors(found: Any, right: dict[str, Tensor], where: str) -> None:
    """Raise `NotYet` unless a dictionary holds the right tensors under the right keys."""
    if not isinstance(found, dict):
        raise NotYet(f"expected a dictionary of tensors, got {type(found).__name__}.")
    missing = [key for key in right if key not in found]
    extra = [str(key) for key in found if key not in right]
    if missing or extra:
        raise NotYet(
            f"the keys {where} are wrong: missing {missing[:2] or 'none'}, "
            f"not expected {extra[:2] or 'none'}."
        )
    for key, tensor in right.items():
        if not isinstance(found[key], Tensor) or found[key].shape != tensor.shape:
            raise NotYet(f"{key} {where}: expected a tensor of the shape {tuple(tensor.shape)}.")
        if not found[key].equal(tensor):
            raise NotYet(f"{key} {where} has the right shape, but the wrong numbers.")


def _expect_refusal(load: Any, model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Raise `NotYet` unless loading raises ValueError and leaves the model as it was."""
    before = copy.deepcopy(model.state_dict())
    fitting = sum(key in before for key in weights)
    try:
        load(model, weights)
    except ValueError:
        pass
    else:
        raise NotYet(f"weights of which {fitting} of {len(before)} fit raise no ValueError.")
    if not all(before[key].equal(tensor) for key, tensor in model.state_dict().items()):
        raise NotYet("the refused weights have changed the model: count before you copy.")
