"""Checks of the exercises in *delete, change, add*: edits of networks, and what shows them.

A network that comes back is audited, and the first finding is turned into the hint.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import densenet121, mobilenet_v3_small, shufflenet_v2_x0_5, squeezenet1_1

from tlbook.check.grading import NotYet, exercise, expect_function, expect_table
from tlbook.findings import Finding
from tlbook.surgery import Audit, audit, delete, get_head, insert_after

EDITS = {"a": 4_096, "b": 9_216, "c": 1_000, "d": 0}
EDITS_HINTS = {
    "a": {
        "_0": "classifier is a Sequential: its forward loops over the layers that are left.",
        "_1000": "number 6 is the layer that makes 1000 of 4096.",
        "_9216": "only the last layer is gone; the six before it still run.",
        "_8192": "count for one image, not for the batch of two.",
    },
    "b": {
        "_0": "the name classifier is still there, and Identity returns what it gets.",
        "_256": "there are 256 maps, and flatten still runs: 6×6 numbers from each.",
        "_4096": "all seven layers are gone, also the one that makes 4096.",
        "_18432": "count for one image, not for the batch of two.",
        "_1000": "the layer that makes 1000 is gone.",
    },
    "c": {
        "_5": "out_features is a note; forward multiplies by the weights, which are for 1000.",
        "_0": "nothing reads out_features, so nothing fails either.",
    },
    "d": {
        "_1000": "what arrives at the next Linear now has 9216 features; it takes 4096.",
        "_4096": "what arrives at the next Linear now has 9216 features; it takes 4096.",
        "_9216": "there are layers behind the gap, and the next Linear takes 4096.",
    },
}

CURES = {
    "never called": "Registered is not called: put it where forward passes.",
    "shared weights": "Work on a deep copy.",
    "not in the network": "Make the optimizer after surgery.",
    "not in the optimizer": "Make the optimizer after surgery, from model.parameters().",
    "BatchNorm moves": "Nothing has to be frozen here.",
    "attribute": "The weights decide, not the attribute: build a new layer.",
}


@exercise(
    "How many numbers an image does AlexNet give after each edit, 0 if forward fails? "
    'answer = {"a": ..., "b": ..., "c": ..., "d": ...}.'
)
def delete_change_add_1(answer: Any) -> None:
    """What forward does after four edits of AlexNet."""
    expect_table(answer, EDITS, EDITS_HINTS)


@exercise(
    "Take features.7 and features.10 out of squeezenet1_1 and put a BatchNorm2d behind the first "
    "convolution: answer = the network."
)
def delete_change_add_2(answer: Any) -> None:
    """Two deletions and an insertion, in an order that renumbering does not spoil."""
    _expect_network(answer)
    if not isinstance(getattr(answer, "features", None), nn.Sequential):
        raise NotYet("the network has no Sequential named features; edit squeezenet1_1 itself.")
    with torch.random.fork_rng(devices=[]):
        right = squeezenet1_1(weights=None)
    for path in ("features.10", "features.7"):
        delete(right, path)
    insert_after(right, "features.0", nn.BatchNorm2d(64))
    _expect_sound(audit(answer, torch.zeros(2, 3, 64, 64)))
    found, wanted = ([_described(m) for m in net.features] for net in (answer, right))
    if len(found) != len(wanted):
        raise NotYet(
            f"features has {len(found)} modules; 13 - 2 + 1 are {len(wanted)}. Deleting takes one "
            "out, an Identity does not; inserting adds one to features itself."
        )
    for place, pair in enumerate(zip(found, wanted, strict=True)):
        if pair[0] != pair[1]:
            raise NotYet(
                f"features.{place} is {pair[0]}; expected {pair[1]}. Each edit moves the numbers "
                "behind it: delete from the back to the front, insert last."
            )
    if list(answer.state_dict()) != list(right.state_dict()):
        raise NotYet("the layers are right, but the keys are not numbered 0, 1, 2, ...")


@exercise(
    "Write a function of (network, layer) that makes a network which computes layer(network(x)) "
    "and keeps all old keys. answer = the function."
)
def delete_change_add_3(answer: Any) -> None:
    """A layer behind a whole network, registered, called, and without renaming a key."""
    expect_function(answer, "a network and a layer")
    for build in (mobilenet_v3_small, shufflenet_v2_x0_5):
        with torch.random.fork_rng(devices=[]):
            network, layer = build(weights=None).eval(), nn.Linear(1000, 5)
            images = torch.rand(2, 3, 64, 64)
        with torch.no_grad():
            logits = network(images)
            right = layer(logits)
        old = copy.deepcopy(network.state_dict())
        try:
            _grade_longer(answer(network, layer), old, images, (logits, right))
        except NotYet as hint:
            raise NotYet(f"{build.__name__}: {hint}") from None


@exercise(
    "Write a function adapt(donor) for one channel and 5 classes that returns (model, optimizer). "
    "answer = the function."
)
def delete_change_add_4(answer: Any) -> None:
    """The whole operation on networks that the chapter has not shown."""
    expect_function(answer, "a network")
    for build in (mobilenet_v3_small, densenet121):
        with torch.random.fork_rng(devices=[]):
            donor = build(weights=None).eval()
        try:
            _grade_adapted(answer, donor)
        except NotYet as hint:
            raise NotYet(f"{build.__name__}: {hint}") from None


def _expect_network(found: Any) -> None:
    if found is None:
        raise NotYet("expected a network, found None; a function has to return it.")
    if not isinstance(found, nn.Module):
        raise NotYet(f"expected a network, found {type(found).__name__}.")


def _described(module: nn.Module) -> str:
    shapes = [tuple(p.shape) for p in module.parameters()]
    return f"{type(module).__name__} with a weight {shapes[0]}" if shapes else str(module)


def _expect_sound(report: Audit) -> None:
    """Raise the most telling finding: a lying attribute explains the failure that it causes."""
    findings = sorted(report.findings, key=lambda finding: finding.check != "attribute")
    if findings:
        raise NotYet(_explained(findings[0]))


def _explained(finding: Finding) -> str:
    place = finding.place or "the network"
    cure = CURES.get(finding.check, "Go back from there to your last edit.")
    return f"audit says of {place}: {finding.check}, {finding.detail}. {cure}"


def _grade_longer(
    longer: Any, old: dict[str, Tensor], images: Tensor, outputs: tuple[Tensor, Tensor]
) -> None:
    _expect_network(longer)
    if lost := [key for key in old if key not in longer.state_dict()]:
        raise NotYet(
            f"{len(lost)} old keys are gone, such as {lost[0]!r}: wrapping puts a prefix in front, "
            "inserting renames the head. Add the layer to the network and change forward."
        )
    if any(not torch.equal(value, longer.state_dict()[key]) for key, value in old.items()):
        raise NotYet("the keys are all there, but old weights have changed.")
    if len(longer.state_dict()) != len(old) + 2:
        raise NotYet("the weight and bias of the layer are not registered exactly once.")
    with torch.no_grad():
        found = longer.eval()(images)
    if found.shape == outputs[0].shape and torch.allclose(found, outputs[0], atol=1e-5):
        raise NotYet("the outputs are those of before: the layer is registered and never called.")
    if found.shape != outputs[1].shape or not torch.allclose(found, outputs[1], atol=1e-5):
        raise NotYet("the outputs are not those of layer(network(x)).")


def _grade_adapted(adapt: Callable, donor: nn.Module) -> None:
    kept, text = copy.deepcopy(donor.state_dict()), str(donor)
    returned = adapt(donor)
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        raise NotYet(f"expected (model, optimizer), found {type(returned).__name__}.")
    model, optimizer = returned
    _expect_network(model)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise NotYet(f"expected an optimizer as second, found {type(optimizer).__name__}.")
    now = donor.state_dict()
    if str(donor) != text or any(not torch.equal(kept[k], now[k]) for k in kept):
        raise NotYet("the donor has changed; begin with copy.deepcopy(donor).")
    stem = next(p for p, m in donor.named_modules() if isinstance(m, nn.Conv2d))
    head = get_head(donor).path
    _expect_stem(model, stem, kept[f"{stem}.weight"])
    report = audit(model, torch.zeros(2, 1, 64, 64), optimizer, donors=[donor])
    _expect_sound(report)
    if report.stages[-1].shape != (2, 5):
        raise NotYet(
            f"two images give {report.stages[-1].shape}, expected (2, 5): the head {head!r} is "
            "the old one, is missing, or has something behind it."
        )
    if report.frozen:
        raise NotYet(f"{report.frozen:,} parameters are frozen; all of them should train.")
    new = model.state_dict()
    for key, value in kept.items():
        if not key.startswith((f"{stem}.", f"{head}.")) and not _is_in(new, key, value):
            raise NotYet(f"{key!r} has not the donor's values; copy the donor, do not rebuild it.")


def _is_in(state: dict[str, Tensor], key: str, value: Tensor) -> bool:
    return key in state and torch.equal(state[key], value)


def _expect_stem(model: nn.Module, path: str, old: Tensor) -> None:
    """Raise `NotYet` unless the stem takes one channel and its filters come from the donor's."""
    modules = dict(model.named_modules())
    if not isinstance(modules.get(path), nn.Conv2d):
        raise NotYet(f"there is no Conv2d at {path!r} any more; only the stem's weights change.")
    conv = modules[path]
    if (channels := conv.weight.shape[1]) != 1:
        lie = "says in_channels=1, but its weights have" if conv.in_channels == 1 else "takes"
        raise NotYet(f"the stem {path!r} {lie} {channels} channels; replace the layer.")
    if conv.weight.shape[2:] != old.shape[2:]:
        raise NotYet(f"the stem {path!r} has filters of another size; keep the donor's.")
    one = conv.weight.detach().flatten(1)
    known = [old.sum(1).flatten(1), *(old[:, i].flatten(1) for i in range(old.shape[1]))]
    if not any(torch.cosine_similarity(one, other).min() > 0.99 for other in known):
        raise NotYet(
            f"the stem {path!r} has fresh random weights; give it the sum or the mean of the "
            "donor's over the colours, as replace_stem does."
        )
