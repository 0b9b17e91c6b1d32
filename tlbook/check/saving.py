"""Checks of the exercises in *saving*: weights and runs in files.

The functions of a reader are run on a network that the chapter does not use; a resumed run is
compared with one that was never stopped.
"""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler
from torchvision.models import mobilenet_v3_small

from tlbook.check.grading import NotYet, exercise, expect, expect_function, expect_table

DENSENET = {
    "classes": "refused",
    "dropout": "same",
    "memory": "same",
    "depth": "refused",
    "eps": "other",
    "bfloat16": "other",
    "parallel": "refused",
}
SETTING = "it has no tensors of its own, so no key and no shape differs."
DENSENET_HINTS = {
    "classes": dict.fromkeys(("same", "other"), "the classifier has another shape."),
    "dropout": {
        "refused": f"Dropout is a setting; {SETTING}",
        "other": "in evaluation mode Dropout does nothing.",
    },
    "memory": {
        "refused": f"that is a setting; {SETTING}",
        "other": "it computes activations again to save memory; the values are the same.",
    },
    "depth": dict.fromkeys(("same", "other"), "it has more layers, and so more keys."),
    "eps": {
        "refused": "eps is an attribute, not a tensor: the state_dict knows nothing of it.",
        "same": "BatchNorm divides by the root of variance + eps, so another eps shows.",
    },
    "bfloat16": {
        "refused": "load_state_dict converts to the format of the network.",
        "same": "every weight is rounded when it is loaded, and so are the outputs.",
    },
    "parallel": dict.fromkeys(
        ("same", "other"), 'the wrapper puts "module." in front of every key.'
    ),
}
Run = tuple[nn.Module, Optimizer, LRScheduler]


@exercise("ShuffleNet's tensors in bytes, floats in float16: answer = a number.")
def saving_1(answer: Any) -> None:
    """Bytes of a halved state_dict whose integers stay whole."""
    if isinstance(answer, int | float) and 4 <= answer < 5_000:
        raise NotYet("expected bytes, found what looks like kilobytes or megabytes.")
    if isinstance(answer, int | float) and 4_600_000 < answer < 4_800_000:
        raise NotYet("that is the size of a file, which also holds names: count the tensors alone.")
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)  # what a division leaves
    expect(
        answer,
        4_590_016,
        _9179584="that is float32, as the network comes.",
        _4589792="that halves everything; the 56 counters of BatchNorm are int64 and stay.",
        _4589680="that takes two bytes for all; the 56 counters of BatchNorm take eight each.",
        _4557208="those are the parameters; the state_dict has buffers too.",
        _2294840="those are numbers; a float16 takes two bytes.",
    )


@exercise('Loads, but: answer = {"classes": ..., "dropout": ..., and so on}.')
def saving_2(answer: Any) -> None:
    """What a fit of keys and shapes says, and what it does not."""
    if isinstance(answer, dict):
        words = [word for word in answer.values() if word not in ("refused", "same", "other")]
        if words:
            raise NotYet(f'expected "refused", "same" or "other", found {words[0]!r}.')
    expect_table(answer, DENSENET, DENSENET_HINTS)


@exercise("Halve what can be halved: answer = halve, a function of a model.")
def saving_3(answer: Any) -> None:
    """A state_dict in float16, as far as its values fit."""
    if isinstance(answer, nn.Module):
        raise NotYet("expected the function itself, found a network.")
    expect_function(answer, "a model")
    model = _with_large_values()
    before = copy.deepcopy(model.state_dict())
    halved = answer(model)
    after = model.state_dict()
    if any(after[key].dtype != before[key].dtype for key in before):
        raise NotYet("the model itself is in float16 now: convert the tensors, not the model.")
    if not all(after[key].equal(before[key]) for key in before):
        raise NotYet("the values of the model have changed: leave it as it is.")
    if not isinstance(halved, dict):
        raise NotYet(f"expected a dictionary of tensors, found {type(halved).__name__}.")
    if halved.keys() != before.keys():
        differs = sorted(map(str, halved.keys() ^ before.keys()))
        raise NotYet(f"the keys are not those of the state_dict, such as {differs[0]}.")
    for key, tensor in before.items():
        _expect_halved(key, halved[key], tensor)


@exercise("Stop and go on: answer = (save_run, load_run), two functions.")
def saving_4(answer: Any) -> None:
    """A checkpoint from which a run goes on to the last bit."""
    if not isinstance(answer, tuple | list):
        raise NotYet(f"expected the pair (save_run, load_run), found {type(answer).__name__}.")
    if len(answer) != 2:
        raise NotYet(f"expected two functions, (save_run, load_run), found {len(answer)}.")
    for function in answer:
        expect_function(function, "a path, a model, an optimizer and a scheduler")
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        _grade_resuming(*answer, Path(folder, "run.pth"))


def _with_large_values() -> nn.Module:
    """A network with two values beyond float16, one negative, and a counter as well."""
    model = mobilenet_v3_small(weights=None)
    norm = model.get_submodule("features.0.1")
    with torch.no_grad():
        norm.running_var[3] = 1e6
        norm.num_batches_tracked.fill_(100_001)
        model.get_submodule("classifier.3").bias[7] = -1e5
    return model


def _expect_halved(key: str, found: Any, tensor: Tensor) -> None:
    if not isinstance(found, Tensor):
        raise NotYet(f"{key} is a {type(found).__name__}, expected a tensor.")
    if not tensor.is_floating_point():
        wanted, why = tensor, "integers stay as they are"
    elif tensor.abs().max() > torch.finfo(torch.float16).max:
        wanted, why = tensor, f"it reaches {tensor.abs().max():.0f}, too large for float16"
    else:
        wanted, why = tensor.half(), "its values fit into float16"
    if found.dtype != wanted.dtype:
        raise NotYet(f"{key} is in {found.dtype}, expected {wanted.dtype}: {why}.")
    if not found.equal(wanted):
        raise NotYet(f"the values of {key} have changed by more than rounding to {wanted.dtype}.")


def _new_run(seed: int) -> Run:
    torch.manual_seed(seed)
    model = mobilenet_v3_small(weights=None, num_classes=4)
    optimizer = AdamW(model.parameters(), lr=1e-2)
    return model, optimizer, ExponentialLR(optimizer, gamma=0.5)


def _two_epochs(run: Run, images: Tensor) -> None:
    """Train two epochs of one step each, from images in a random order, with Dropout."""
    model, optimizer, scheduler = run
    model.train()
    for _ in range(2):
        order = torch.randperm(len(images))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[order]), order % 4).backward()
        optimizer.step()
        scheduler.step()


def _grade_resuming(save_run: Callable, load_run: Callable, path: Path) -> None:
    images = torch.rand(4, 3, 32, 32)
    straight = _new_run(0)
    _two_epochs(straight, images)
    saved = copy.deepcopy([part.state_dict() for part in straight])
    random = torch.get_rng_state()
    save_run(path, *straight, 2)
    if not path.is_file():
        raise NotYet("save_run wrote no file at the path that it was given.")
    try:
        torch.load(path, weights_only=True)
    except Exception as error:
        raise NotYet(
            f"the file does not load with weights_only=True ({type(error).__name__}): save the "
            "state_dict of each part with torch.save, not the objects."
        ) from None
    torch.set_rng_state(random)  # saving may draw random numbers; the comparison is not about that
    _two_epochs(straight, images)

    fresh = _new_run(1)
    epoch = load_run(path, *fresh)
    _expect_restored(fresh, saved, random)
    if type(epoch) is not int or epoch != 2:
        raise NotYet(f"load_run returned {epoch!r}, expected the epoch that was saved, 2.")
    _two_epochs(fresh, images)
    if not _same(fresh[0].state_dict(), straight[0].state_dict()):
        raise NotYet("after loading all looks right, but the resumed run ends with other weights.")


def _expect_restored(run: Run, saved: list[dict], random: Tensor) -> None:
    """Name the part of a run that did not come back."""
    model, optimizer, scheduler = run
    buffers = dict(model.named_buffers())
    wrong = [key for key, tensor in model.state_dict().items() if not tensor.equal(saved[0][key])]
    if wrong and set(wrong) <= buffers.keys():
        raise NotYet(f"the parameters are back, the buffers are not, such as {wrong[0]}.")
    if wrong:
        raise NotYet(f"after load_run the weights are not those saved, first {wrong[0]}.")
    if not _same(optimizer.state_dict(), saved[1]):
        raise NotYet("the optimizer does not have its state back: moving averages, learning rate.")
    if not _same(scheduler.state_dict(), saved[2]):
        raise NotYet("the scheduler does not know where it was.")
    if not torch.get_rng_state().equal(random):
        raise NotYet(
            "the random state is not that of the moment of saving; order and Dropout would differ. "
            "Save torch.get_rng_state(), and set it last."
        )


def _same(one: Any, other: Any) -> bool:
    """Compare nested dictionaries and lists of tensors and numbers."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.equal(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other
