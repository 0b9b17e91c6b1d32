"""Checks of the exercises in *inside_a_run*: activations, nodes and hooks."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from tlbook.check.grading import NotYet, exercise, expect, expect_function, expect_table

MOBILENET_ADDS = [f"features.{number}.add" for number in (3, 5, 6, 8, 10, 11)]
SWIN = {
    "features.1": (1, 56, 56, 96),
    "features.3": (1, 28, 28, 192),
    "permute": (1, 768, 7, 7),
    "channels_last": ["features.1", "features.3"],
}
AFTER_MERGING = "that is after features.2 has halved the side and doubled the channels."
SWIN_HINTS = {
    "features.1": {
        "(1, 96, 56, 56)": "the channels are the last dimension here; print the shape.",
        "(1, 28, 28, 192)": AFTER_MERGING,
        "(56, 56, 96)": "keep the batch: it comes first.",
    },
    "features.3": {
        "(1, 192, 28, 28)": "the channels are the last dimension here; print the shape.",
        "(1, 14, 14, 384)": "that is after features.4, which halves the side once more.",
        "(28, 28, 192)": "keep the batch: it comes first.",
    },
    "permute": {
        "(1, 7, 7, 768)": "that is what goes into permute; it moves the channels.",
        "(768, 7, 7)": "keep the batch: it comes first.",
    },
    "channels_last": {
        "['features.1', 'features.3', 'permute']": "permute is there to move the channels.",
        "['permute']": "at permute the 768 channels come second.",
    },
}

# ReLU6 of EfficientNet-Lite0 for the photograph of Grace Hopper.
MOST_ZEROS, SHARE = "bn2.act", 0.890
TOLERANCE = 0.005


@exercise("The shape of DenseNet-121's features.denseblock3: answer = a tuple.")
def inside_a_run_1(answer: Any) -> None:
    """A shape in the middle of DenseNet-121."""
    expect(
        tuple(answer) if isinstance(answer, torch.Size | list) and answer else answer,
        (1, 1024, 14, 14),
        **{
            "(1024, 14, 14)": "keep the batch: it comes first.",
            "(1, 14, 14, 1024)": "the channels come second in this network.",
            "(1, 512, 7, 7)": "that is after transition3, which halves both.",
            "(1, 256, 14, 14)": "that is what goes into the block; ask for its output.",
            "(1, 32, 14, 14)": "that is one layer's own 32 channels; the block gives them all.",
            "(1, 512, 28, 28)": "that is denseblock2.",
            "(1, 1024, 7, 7)": "that is denseblock4, which has as many channels.",
        },
    )


@exercise("The nodes of mobilenet_v3_small that add: answer = a list of names.")
def inside_a_run_2(answer: Any) -> None:
    """The functional steps that no module does."""
    if isinstance(answer, tuple):
        answer = list(answer)
    if not isinstance(answer, list):
        raise NotYet(f"expected a list of names, found {type(answer).__name__}.")
    if any("." not in str(name) for name in answer):
        raise NotYet("those look like names of fx nodes; get_graph_node_names has paths.")
    missing = [name for name in MOBILENET_ADDS if name not in answer]
    extra = [name for name in answer if name not in MOBILENET_ADDS]
    if extra and str(extra[0]).endswith(".add"):
        raise NotYet(f"there is no node {extra[0]!r}: print the names.")
    if extra:
        raise NotYet(f"{extra[0]!r} does not add: look for names that end in '.add'.")
    if missing:
        raise NotYet(f"{len(missing)} of {len(MOBILENET_ADDS)} are missing.")
    expect(answer, MOBILENET_ADDS, **{str(answer): "in the order of the run, each once."})


@exercise('Swin-T: answer = {"features.1": ..., ..., "channels_last": [...]}.')
def inside_a_run_3(answer: Any) -> None:
    """The shapes of a transformer that keeps its channels last."""
    if isinstance(answer, dict):
        answer = {
            key: tuple(value)
            if key != "channels_last" and isinstance(value, torch.Size | list)
            else value
            for key, value in answer.items()
        }
        names = answer.get("channels_last")
        if isinstance(names, list | tuple | set):
            answer["channels_last"] = sorted(map(str, names))
    expect_table(answer, SWIN, SWIN_HINTS)


@exercise('The ReLU6 with the most zeros: answer = {"path": ..., "zeros": ...}.')
def inside_a_run_4(answer: Any) -> None:
    """The layer of a pretrained network that is silent most of the time."""
    right = {"path": MOST_ZEROS, "zeros": SHARE}
    hints = {
        "path": {
            "bn2": "that is the module around it; ask for the ReLU6 itself.",
            "blocks.6.0.bn1.act": "there is one with more behind the blocks.",
        }
    }
    share = answer.get("zeros") if isinstance(answer, dict) else None
    if isinstance(share, Tensor) and share.numel() == 1:
        share = share.item()
    if isinstance(share, int | float):
        if math.isclose(share, 1 - SHARE, abs_tol=TOLERANCE):
            raise NotYet("zeros: that is the share that is not zero.")
        if math.isclose(share, 100 * SHARE, abs_tol=1):
            raise NotYet("zeros: that is in percent; expected a share between 0 and 1.")
        if math.isclose(share, SHARE, abs_tol=TOLERANCE):
            answer = answer | {"zeros": SHARE}
    expect_table(answer, right, hints)


@exercise("A tool without side effects: answer = a function (model, path, x).")
def inside_a_run_5(answer: Any) -> None:
    """A function that returns an activation and leaves the network as it was."""
    expect_function(answer, "a model, a path and an input")
    if isinstance(answer, nn.Module):
        raise NotYet("expected the function itself, found a network.")
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)
        _grade_values(answer, network.eval(), image)
        _grade_mode(answer, network.train(), image)
        _grade_failure(answer, network, image[:, :1])


def _grade_values(activation: Callable[..., Any], network: nn.Module, image: Tensor) -> None:
    """Compare with the activations computed by hand, layer after layer."""
    with torch.no_grad():
        norm = network.bn1(network.conv1(image))
        block = network.layer1[0](network.maxpool(norm.relu()))
    with _untouched(network):
        replaced = _replaces_output(activation, network, image)
    if replaced:
        raise NotYet("your hook returns a value, which replaces what bn1 returned: return nothing.")
    for path, right, hint in [
        ("bn1", norm, "the in-place ReLU behind bn1 has overwritten it: keep a clone()."),
        ("layer1.0", block, "look at what you keep."),
        ("layer1.0.relu", block, "the module runs twice; expected its last output."),
    ]:
        with _untouched(network):
            found = activation(network, path, image)
        if not isinstance(found, Tensor):
            raise NotYet(f"expected a tensor for {path}, found {type(found).__name__}.")
        if found.requires_grad:
            raise NotYet(f"the activation of {path} still has its graph: detach() it.")
        if found.shape != right.shape:
            shapes = f"{tuple(found.shape)}, expected {tuple(right.shape)}"
            raise NotYet(f"for {path} you return the shape {shapes}: keep what the hook gets.")
        if not torch.allclose(found, right, atol=1e-5):
            raise NotYet(f"the activation of {path} is not what it returned: {hint}")


def _replaces_output(activation: Callable[..., Any], network: nn.Module, image: Tensor) -> bool:
    """Tell whether the next layer gets another tensor than bn1 has returned."""
    seen: list[Tensor] = []
    with (
        network.bn1.register_forward_hook(lambda module, inputs, output: seen.append(output)),
        network.relu.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0])),
    ):
        activation(network, "bn1", image)
    return len(seen) == 2 and seen[0] is not seen[1]


def _grade_mode(activation: Callable[..., Any], network: nn.Module, image: Tensor) -> None:
    """In training mode the run normalises by the batch, and the mode stays."""
    before = network.bn1.running_mean.clone()
    with _untouched(network):
        found = activation(network, "bn1", image)
    if torch.equal(network.bn1.running_mean, before):
        raise NotYet(
            "in training mode bn1's statistics did not move: run the model itself, as it is."
        )
    if found.requires_grad:
        raise NotYet("in training mode the activation still has its graph: detach() it.")


def _grade_failure(activation: Callable[..., Any], network: nn.Module, bad: Tensor) -> None:
    """A run that fails leaves no hook either; that it raises is right."""
    with _untouched(network, " after a run that failed", "use a with block or try/finally"):
        try:
            activation(network, "bn1", bad)
        except Exception:  # any error of the network itself
            return


@contextmanager
def _untouched(
    network: nn.Module, when: str = "", advice: str = "remove it by its handle"
) -> Iterator[None]:
    """Raise `NotYet` if hooks, the mode or the modules are others than before."""
    before = _state(network)
    yield
    left = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())
    if left:
        raise NotYet(f"you leave a hook behind{when}: {advice}.")
    if _state(network) != before:
        raise NotYet("the network's modules, mode or inplace have changed: leave them alone.")


def _state(network: nn.Module) -> list[tuple[Any, ...]]:
    """List what an answer may not change: the modules, their mode, their `inplace`."""
    return [(id(m), m.training, getattr(m, "inplace", None)) for m in network.modules()]
