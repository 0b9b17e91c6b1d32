"""Checks of the exercises in *numbers that are not what they seem*.

Functions that a reader writes are run on small networks and labels on which every typical mistake
gives another result than the right way.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from tlbook.check.grading import NotYet, exercise, expect_function, expect_table

# A log of 1,000 images in batches of 200: loss 0.0017, accuracy 0.90.
LOG = {"loss": 0.34, "least": 0.0693}
LOG_HINTS = {
    "loss": {
        0.0017: "that is what the log says; each of its summands stands for 200 images.",
        0.0085: "that multiplies by the number of batches; each mean stands for 200 images.",
        1.7: "that is the sum of the batch means; divide it by the number of batches.",
        0.0017 / 200: "the log is too small already: the batch size must make it larger.",
    },
    "least": {
        0.1: "that is the share of wrong images; each of them costs at least ln 2.",
        0.6238: "that takes the right images; the wrong ones cost at least ln 2 each.",
        0.6931: "that is the cost of one wrong image; only one in ten is wrong.",
        0.2303: "a wrong image costs least when two classes share everything: ln 2, not ln 10.",
        0.0301: "that takes the logarithm to base 10; a loss takes the natural one.",
        0.1054: "that is -ln 0.9, as if the probability of the right class were 0.9 everywhere.",
        0.0: "the wrong images cost something, however sure the network is of the others.",
    },
}
CASES = {"a": "K8", "b": "K7", "c": "K24", "d": "K22", "e": "K6", "f": "K25"}
CASE_HINTS = {
    "a": {
        "K7": "a loss that is averaged wrongly is too small, and ln 100 is 4.6 as it should be.",
        "K6": "a rate that is too small delays the loss; what keeps it above ln(1 + 99/e) = 3.62?",
        "K25": "what keeps the loss of 100 classes above ln(1 + 99/e) = 3.62?",
    },
    "b": {
        "K24": "the accuracy is the same, so it is not a mean of batch means.",
        "K25": "a wrong pair of layer and loss is wrong in the same way for every batch size.",
    },
    "c": {
        "K7": "then 100, 200 and 500 would differ too; 300 leaves a smaller last batch.",
        "K22": "the number depends on the batch size, not on the run.",
        "K23": "nothing crashes, and in evaluation mode BatchNorm does not look at the batch.",
    },
    "d": {"K24": "ten full batches in a fixed order: something else is drawn anew each time."},
    "e": {"K20": "nothing is chosen here; which call came before the first step?"},
    "f": {
        "K7": "no loss is averaged here; what has been done to logits?",
        "K8": "a softmax would keep it below 1; what has been done to logits here?",
    },
}
# Labels in the order of the names as text; the dictionary itself in another order.
NUMBERED = {"2": 3, "1": 0, "10": 1, "11": 2, "3": 4}
# Labels in an order of their own, as in a dataset that is not an ImageFolder.
CLOTHES = {"T-shirt/top": 0, "Trouser": 1, "Pullover": 2, "Dress": 3}
OTHER_MEAN = {
    "mixer_b16_224.goog_in21k_ft_in1k",
    "vit_base_patch16_224.augreg_in21k_ft_in1k",
    "vit_base_patch16_clip_224.openai",
}
ZOO = OTHER_MEAN | {
    "convnext_tiny.fb_in1k",
    "densenet121.ra_in1k",
    "mobilenetv3_large_100.ra_in1k",
    "swin_tiny_patch4_window7_224.ms_in1k",
}


@exercise(
    "A log of 1,000 images in batches of 200 says loss 0.0017, accuracy 0.90: "
    'answer = {"loss": ..., "least": ...}.'
)
def numbers_1(answer: Any) -> None:
    """The loss behind a log, and the least that its accuracy allows."""
    if not isinstance(answer, dict) or answer.keys() != LOG.keys():
        expect_table(answer, LOG, {})
    for name, right in LOG.items():
        value = answer[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise NotYet(f"{name}: expected a number, found {type(value).__name__}.")
        if math.isclose(value, right, rel_tol=0.02):
            continue
        for wrong, hint in LOG_HINTS[name].items():
            if math.isclose(value, wrong, rel_tol=0.02, abs_tol=1e-6):
                raise NotYet(f"{name}: {hint}")
        raise NotYet(f"{name}: {value} is not the right value.")


@exercise('Name the cases: answer = {"a": "K5", ...} for a to f.')
def numbers_2(answer: Any) -> None:
    """Six symptoms and their cases."""
    if isinstance(answer, dict):
        answer = {key: _tidied(value) for key, value in answer.items()}
    expect_table(answer, CASES, CASE_HINTS)


@exercise(
    "Write predict_proba(network, images), which returns the probabilities (N, classes) and "
    "leaves the network as it was. answer = predict_proba."
)
def numbers_3(answer: Any) -> None:
    """Probabilities of two networks, one ending in logits and one in LogSoftmax."""
    expect_function(answer, "a network and images")
    images = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    for ending in ("logits", "LogSoftmax"):
        for mode in ("training", "evaluation", "mixed"):
            network = _delicate_network(ending).train(mode != "evaluation")
            if mode == "mixed":
                network[1].eval()
            before = copy.deepcopy(network)
            with torch.random.fork_rng(devices=[]):
                found = answer(network, images)
            _expect_untouched(network, before)
            with torch.inference_mode():
                right = before.eval()(images).softmax(dim=1)
            _expect_probabilities(found, right, f"a network that ends in {ending}")


@exercise(
    "Write folder_names(class_to_idx, predictions), which returns the list of folder names. "
    "answer = folder_names."
)
def numbers_4(answer: Any) -> None:
    """Names of folders whose order as text is not that of their numbers."""
    expect_function(answer, "class_to_idx and a tensor of labels")
    mapping = dict(NUMBERED)
    found = _named(answer, mapping, [3, 0, 1, 1, 4])
    if mapping != NUMBERED:
        raise NotYet("your function changes class_to_idx, which belongs to the dataset.")
    if not isinstance(found, list):
        raise NotYet(f"expected a list, found {type(found).__name__}.")
    if found == ["2", "1", "10", "10", "3"]:
        if _named(answer, dict(CLOTHES), [2, 0, 3]) != ["Pullover", "T-shirt/top", "Dress"]:
            raise NotYet(
                "that is the order of an ImageFolder; other labels need not follow the names."
            )
        return
    if not all(isinstance(name, str) for name in found):
        raise NotYet("expected names of folders as text: class_to_idx leads from name to label.")
    if found == ["4", "1", "2", "2", "5"]:
        raise NotYet("label + 1 is not the folder: the folders are in the order of text.")
    if found == ["11", "2", "1", "1", "3"]:
        raise NotYet("go by the labels in class_to_idx, not by the order of its entries.")
    raise NotYet(f"for {NUMBERED} and the labels 3, 0, 1, 1, 4 expected 2, 1, 10, 10, 3.")


@exercise("Which of zoo were not trained with ImageNet's mean? answer = a list of names.")
def numbers_5(answer: Any) -> None:
    """The weights in a small zoo that want another mean."""
    if not isinstance(answer, list | tuple | set) or not all(isinstance(x, str) for x in answer):
        raise NotYet(f"expected a list of names, found {type(answer).__name__}.")
    unknown = sorted(set(answer) - ZOO)
    if unknown:
        raise NotYet(f"{unknown[0]!r} is not in zoo: give the names in full.")
    if set(answer) == ZOO - OTHER_MEAN:
        raise NotYet("these are the ones for which ImageNet's mean fits; the others are asked for.")
    extra = sorted(set(answer) - OTHER_MEAN)
    if extra:
        raise NotYet(f"{extra[0]} was trained with ImageNet's mean.")
    missing = len(OTHER_MEAN - set(answer))
    if missing:
        raise NotYet(f"right so far, {missing} missing: print the mean of every name in zoo.")


def _tidied(case: Any) -> Any:
    return case.strip().upper() if isinstance(case, str) else case


def _named(answer: Any, mapping: dict[str, int], labels: list[int]) -> Any:
    try:
        return answer(mapping, torch.tensor(labels))
    except KeyError as error:
        key = error.args[0] if error.args else None
        if torch.is_tensor(key):
            raise NotYet(
                "a tensor is found in no dictionary: loop over predictions.tolist()."
            ) from None
        raise NotYet(
            f"{key!r} is no key: class_to_idx leads from name to label, and you need the way back."
        ) from None


def _delicate_network(ending: str) -> nn.Module:
    """Make a network whose outputs and buffers depend on its mode."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0 if ending == "logits" else 2)
        last = [] if ending == "logits" else [nn.LogSoftmax(dim=1)]
        return nn.Sequential(
            nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3), *last
        )


def _expect_untouched(network: nn.Module, before: nn.Module) -> None:
    old = before.state_dict()
    for name, tensor in network.state_dict().items():
        if not torch.equal(tensor, old[name]):
            raise NotYet(f"{name} has changed: call network.eval() before the forward pass.")
    modules = zip(network.named_modules(), before.modules(), strict=True)
    for (path, module), other in modules:
        if module.training != other.training:
            which = f"layer {path} ({type(module).__name__})" if path else "the network"
            came, left = ("training" if m.training else "evaluation" for m in (other, module))
            raise NotYet(f"{which} came in {came} mode and is now in {left} mode.")


def _expect_probabilities(found: Any, right: Tensor, which: str) -> None:
    if not torch.is_tensor(found) or found.shape != right.shape:
        raise NotYet(f"expected a tensor {tuple(right.shape)}, found {_described(found)}.")
    if found.requires_grad:
        raise NotYet("gradients were recorded: use torch.inference_mode() or torch.no_grad().")
    if torch.allclose(found, right, atol=1e-5):
        return
    sums = found.sum(dim=1)
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
        raise NotYet(
            f"{which}: the probabilities of an image sum to {sums[0]:.2f}, not 1. What turns both "
            "logits and their log-softmax into probabilities?"
        )
    if torch.allclose(found, right.softmax(dim=1), atol=1e-5):
        raise NotYet(f"{which}: the softmax was taken twice.")
    raise NotYet(f"{which}: these are not its probabilities. Is it the network of the argument?")


def _described(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if torch.is_tensor(value) else type(value).__name__
