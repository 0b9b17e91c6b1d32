"""Checks of the exercises in *Clinic: networks that are not what they print*.

Functions are tried on networks that the chapter does not show, and a hint names the case that is
still there.
"""

import copy
import operator
from collections import OrderedDict
from collections.abc import Callable
from textwrap import shorten
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VisionTransformer, mobilenet_v2, mobilenet_v3_small
from torchvision.models import shufflenet_v2_x0_5 as shufflenet

from tlbook.check.grading import NotYet, exercise, expect_function, expect_table
from tlbook.surgery import audit, get_head

CASES = {"a": "K11", "b": "K2", "c": "K10", "d": "K3", "e": "K18", "f": "K14"}
CASES_HINTS = {
    "a": {
        "K3": "the head runs; what would have to know it, for its weights to change?",
        "K12": "K12 moves weights that should rest; here weights rest that should move.",
        "K9": "nothing is frozen here; who changes weights, and which ones does it hold?",
    },
    "b": {"K4": "no earlier change moved the sizes; compare the print with the weight."},
    "c": {
        "K12": "there was no training step, so no optimizer moved anything.",
        "K9": "no parameter is trainable; what moves without gradients?",
        "K13": "no other network was trained; what moves in a forward pass?",
    },
    "d": {
        "K10": "dropout has no statistics; does it run at all?",
        "K17": "the layer is built as it should be; does anything call it?",
        "K2": "no attribute was changed, a layer was added; does anything call it?",
    },
    "e": {"K5": "look at the front of the keys.", "K1": "nothing was deleted; look at the keys."},
    "f": {
        "K4": "sizes that do not meet raise; here the number of rows has changed.",
        "K15": "no step is missing; which step of Viewed lets the number of rows change?",
    },
}
PREFIXES = ("", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.module.")
GREY = (4, 1, 64, 64)


@exercise('Name the six cases: answer = {"a": "K...", "b": ..., "c": ..., ..., "f": ...}.')
def networks_1(answer: Any) -> None:
    """Reports from the ward, each to be traced to its case."""
    if isinstance(answer, dict):
        answer = {key: case.strip().upper() if isinstance(case, str) else case
                  for key, case in answer.items()}  # fmt: skip
    expect_table(answer, CASES, CASES_HINTS)


@exercise(
    "Write a function of (model) that returns a network which gives what arrives at the model's "
    "head, and leaves the model as it was. answer = the function."
)
def networks_2(answer: Any) -> None:
    """A network without its head, with every step of its forward."""
    expect_function(answer, "a network")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = VisionTransformer(
            image_size=32, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32
        )
        models = {"MobileNetV2": mobilenet_v2(weights=None), "the transformer": transformer}
        for name, model in models.items():
            try:
                _grade_headless(answer, model, torch.rand(3, 3, 32, 32))
            except NotYet as hint:
                raise NotYet(f"{name}: {hint}") from None


@exercise(
    "Write a function of (model, state) that takes the prefixes off, copies all weights or "
    "raises. answer = the function."
)
def networks_3(answer: Any) -> None:
    """Weights under prefixed keys, loaded completely or not at all."""
    expect_function(answer, "a network and a state_dict")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for build in (_with_a_misleading_name, shufflenet):
            trained = build()
            for prefix in PREFIXES:
                _grade_loading(answer, build(), trained, prefix)
        short = _with_a_misleading_name().state_dict()
        short.popitem()
        try:
            answer(_with_a_misleading_name(), short)
        except Exception:
            return
    raise NotYet("a state without one of the tensors is accepted without an error.")


@exercise(
    "Mend the patient: answer = a function of (model) that mends it in place and returns an SGD "
    "optimizer of all that trains."
)
def networks_4(answer: Any) -> None:
    """A network with several faults of surgery, mended."""
    expect_function(answer, "a network")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, donor, sound = _patient()
        kept = copy.deepcopy(donor.state_dict())
        given = [*model.modules(), *model.parameters()]
        optimizer = answer(model)
        now = [*model.modules(), *model.parameters()]
        if len(now) == len(given) and all(map(operator.is_, now, given)):
            raise NotYet("no layer of the given network has changed; mend it in place, not a copy.")
        if not isinstance(optimizer, torch.optim.SGD):
            raise NotYet(f"expected an SGD optimizer back, found {type(optimizer).__name__}.")
        _grade_outputs(model, sound, torch.rand(*GREY))
        found = audit(model, torch.rand(*GREY), optimizer, donors=[donor]).findings
        if found:
            place = found[0].place or "the network"
            raise NotYet(f"audit still finds, at {place}, {found[0].check}: {found[0].detail}.")
        _grade_training(model, optimizer)
        if any(not kept[key].equal(now) for key, now in donor.state_dict().items()):
            raise NotYet("training the patient has changed the donor (K13).")


def _grade_headless(headless: Callable, model: nn.Module, images: Tensor) -> None:
    sound = copy.deepcopy(model).eval()
    sound.set_submodule(get_head(sound).path, nn.Identity())
    before = copy.deepcopy(model.state_dict()), str(model)
    found = headless(model)
    if not isinstance(found, nn.Module):
        raise NotYet(f"expected a network back, found {type(found).__name__}.")
    after = model.state_dict()
    if str(model) != before[1] or any(not before[0][key].equal(after[key]) for key in before[0]):
        raise NotYet("the given network is no longer what it was; work on a copy.")
    with torch.no_grad():
        right = sound(images)
        try:
            output = found.eval()(images)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise NotYet(f"{what}. Keep the model's own forward, and all it calls (K1).") from None
    if not torch.is_tensor(output) or output.shape != right.shape:
        shape = tuple(output.shape) if torch.is_tensor(output) else type(output).__name__
        raise NotYet(
            f"the result is {shape}, expected {tuple(right.shape)}; is the head gone, and are all "
            "other steps of forward there (K15)?"
        )
    if not torch.allclose(output, right, atol=1e-5):
        raise NotYet("the shape is right, the features are not; which step is missing (K15)?")
    own = {parameter.data_ptr() for parameter in model.parameters()}
    if any(parameter.data_ptr() in own for parameter in found.parameters()):
        raise NotYet("what you return shares weights with the given network (K13); copy it.")


def _with_a_misleading_name() -> nn.Module:
    layers = {"stem_module": nn.Linear(4, 8), "middle": nn.BatchNorm1d(8), "head": nn.Linear(8, 2)}
    return nn.Sequential(OrderedDict(layers))


def _grade_loading(load: Callable, model: nn.Module, trained: nn.Module, prefix: str) -> None:
    state = {prefix + key: value.clone() for key, value in trained.state_dict().items()}
    keys, first = list(state), f"keys such as {next(iter(state))!r}"
    try:
        load(model, state)
    except Exception as error:
        lines = str(error).strip().splitlines()  # PyTorch's last one names what did not fit
        what = shorten(lines[-1], 200) if len(lines) > 1 else str(error)
        raise NotYet(f"{first} raise {type(error).__name__}: {what}") from None
    if list(state) != keys:
        raise NotYet("you change the dictionary that you are given; make a new one.")
    now = model.state_dict()
    if now.keys() != trained.state_dict().keys():
        raise NotYet("the keys of the network have changed; change those of the state.")
    left = [key for key, value in trained.state_dict().items() if not now[key].equal(value)]
    if left:
        raise NotYet(f"{first}: {left[0]} and {len(left) - 1} more are not loaded (K18).")


def _patient() -> tuple[nn.Module, nn.Module, nn.Module]:
    """The broken network, the donor of its block, and a whole one with the same features."""
    donor, model = mobilenet_v3_small(weights=None), mobilenet_v3_small(weights=None)
    model.features[4] = donor.features[4]
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 1.0  # one batch sets the statistics, as training would have
    with torch.no_grad():
        model(torch.rand(8, 3, 64, 64))
    sound = copy.deepcopy(model).eval()
    model.features[0][0].in_channels = 1
    model.add_module("classes", nn.Linear(1000, 5))
    model.features.requires_grad_(False)
    return model, donor, sound


def _grade_outputs(model: nn.Module, sound: nn.Module, grey: Tensor) -> None:
    """Raise `NotYet` unless grey images pass, to five classes, through the right features."""
    was = model.training
    model.eval()
    with torch.no_grad():
        try:
            shape = tuple(model(grey).shape)
        except RuntimeError as error:
            raise NotYet(
                f"a grey image raises {error}. The stem goes by the shape of its weight, not by "
                "in_channels (K2)."
            ) from None
        if shape != (len(grey), 5):
            idle = "; the layer classes is registered last and never runs" * hasattr(
                model, "classes"
            )
            raise NotYet(f"the output is {shape}, expected {(len(grey), 5)}{idle} (K3).")
        right = sound.features(grey.expand(-1, 3, -1, -1))
        if not torch.allclose(model.features(grey), right, atol=1e-4):
            raise NotYet("the features differ from those of three equal channels (K2).")
    model.train(was)


def _grade_training(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raise `NotYet` unless a step changes the whole classifier and nothing in the features."""
    before = copy.deepcopy(model.state_dict())
    model.train()
    F.cross_entropy(model(torch.rand(*GREY)), torch.tensor([0, 1, 2, 3])).backward()
    optimizer.step()
    for key, now in model.state_dict().items():
        if key.startswith("features.") and not now.equal(before[key]):
            raise NotYet(f"one step in training mode changes {key}; freeze it for good (K10).")
    for name, parameter in model.classifier.named_parameters():
        if parameter.grad is None:
            raise NotYet(f"classifier.{name} gets no gradient; the classifier is to train.")
