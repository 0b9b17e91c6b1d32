"""Cut a network in two at a named node, without touching it.

The forward pass is traced once in training and once in evaluation mode with torch.fx; what comes
before the node and what comes after it become modules of their own that share the weights.
"""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from tlbook.paths import split_path, suggest, unwrap

_MODES = {True: "training", False: "evaluation"}


def feature_extractor(model: nn.Module, node: str) -> nn.Module:
    """Return the part of a network that computes the output of one node.

    Nothing behind the node is computed. The part shares its weights with the network, whose
    modes, statistics and gradients stay as they are; its state_dict has the network's keys. What
    is frozen stays frozen, so freeze before you cut.

    Args:
        model: any module that torch.fx can trace, as all of torchvision's classification networks.
        node: dotted path of a module, or of an operation between modules such as
            "layer1.0.relu_1" (the second use of that module) or "layer1.0.add".

    Returns:
        A module from the network's inputs to the node's output; in the network's mode.

    Raises:
        ValueError: if there is no such node, naming the nearest, or the network cannot be traced.

    Example:
        >>> net = torchvision.models.resnet18()
        >>> feature_extractor(net, "layer2")(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 128, 8, 8])
    """
    traces = _traces(model, node)
    return _prefix(model, traces, node)


def split_at(model: nn.Module, node: str) -> tuple[nn.Module, nn.Module]:
    """Cut a network behind a node: `suffix(prefix(inputs))` is `model(inputs)`, bit for bit.

    Both parts share their weights with the network and have its keys, so that training the
    suffix trains the network. They follow `train()` and `eval()`; what is frozen stays frozen,
    so freeze before you cut. The suffix never writes into what it is given.

    Args:
        model: any module that torch.fx can trace, as all of torchvision's classification networks.
        node: as in `feature_extractor`; the node's output must be all that the rest needs.

    Returns:
        The prefix, from the network's inputs to the node's output, and the suffix, from there to
        the network's outputs; both in the network's mode.

    Raises:
        ValueError: if there is no such node, the network cannot be traced, or other values cross
            the cut, such as a skip connection or an auxiliary output; it names them and the
            nearest nodes where the cut is clean.

    Example:
        >>> net = torchvision.models.resnet18().eval()
        >>> prefix, suffix = split_at(net, "layer2")
        >>> images = torch.rand(1, 3, 64, 64)
        >>> torch.equal(suffix(prefix(images)), net(images))
        True
    """
    traces = _traces(model, node)
    for mode, trace in traces.items():
        if crossing := trace.crossing(trace.names[node]):
            raise ValueError(
                f"{type(unwrap(model)).__name__} cannot be cut at {node!r}: in {_MODES[mode]} mode "
                f"other values cross it, {', '.join(map(repr, crossing))}. {_advice(traces, node)}"
            )
    return _prefix(model, traces, node), _suffix(model, traces, node)


class _Part(nn.Module):
    """Modules of a network at their own paths, run in the order of a graph for each mode.

    The graph is chosen in `forward` by `training`, so that it fits whoever switched the mode.
    """

    def __init__(
        self,
        model: nn.Module,
        extent: str,
        graphs: dict[bool, fx.Graph],
        constants: dict[str, Tensor],
    ) -> None:
        super().__init__()
        model = unwrap(model)
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)
        self.extent, self.graphs, self.training = extent, graphs, model.training
        for graph in graphs.values():
            for node in graph.nodes:
                if node.op in ("call_module", "get_attr") and node.target not in constants:
                    self._adopt(model, node.target)

    def _adopt(self, model: nn.Module, path: str) -> None:
        """Register what the network has at a path under the same path."""
        giver, taker = model, self
        parent, name = split_path(path)
        for step in parent.split(".") if parent else ():
            giver = giver.get_submodule(step)
            if step not in taker._modules:
                taker.add_module(step, nn.Module())
                taker.get_submodule(step).training = giver.training
            taker = taker.get_submodule(step)
        if taker is giver:  # inside a layer that is here as a whole
            return
        value = getattr(giver, name)
        if name in giver._buffers:
            taker.register_buffer(name, value, name not in giver._non_persistent_buffers_set)
        else:
            setattr(taker, name, value)

    def extra_repr(self) -> str:
        """Say which part this is."""
        return self.extent

    def forward(self, *inputs: Any) -> Any:
        """Run the graph of the present mode."""
        return fx.Interpreter(self, graph=self.graphs[self.training]).run(*inputs)


def _prefix(model: nn.Module, traces: dict[bool, "_Trace"], node: str) -> _Part:
    graphs = {mode: trace.prefix(node) for mode, trace in traces.items()}
    return _Part(model, f"up to {node!r}", graphs, traces[True].constants | traces[False].constants)


def _suffix(model: nn.Module, traces: dict[bool, "_Trace"], node: str) -> _Part:
    graphs = {mode: trace.suffix(node) for mode, trace in traces.items()}
    return _Part(model, f"from {node!r}", graphs, traces[True].constants | traces[False].constants)


class _Tracer(NodePathTracer):
    """Name nodes as torchvision does, and look into blocks but not into layers.

    A layer that stays one node reads its own mode when it runs, so that a frozen one behaves.
    """

    proxy_buffer_attributes = True  # buffers are read when the part runs, not once for all

    def __init__(self) -> None:
        super().__init__(autowrap_modules=(math, torchvision.ops))
        self.outputs: dict[str, fx.Node] = {}

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        """Take a module without children, or one of PyTorch's own kinds, for a layer."""
        homes = {kind.__module__ for kind in type(module).__mro__}
        homes = {home for home in homes if not home.endswith(("module", "container"))}
        own = any(home.startswith("torch.nn.") for home in homes)
        return own or not any(True for _ in module.children())

    def call_module(self, module: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        """Remember what each block returned, which names the block's node."""
        output = super().call_module(module, forward, args, kwargs)
        if isinstance(output, fx.Proxy):
            self.outputs[self.path_of_module(module)] = output.node
        return output


class _Trace:
    """The graph of a network in one mode, and the nodes that its input reaches by name."""

    def __init__(self, model: nn.Module) -> None:
        tracer = _Tracer()
        self.graph = tracer.trace(model)
        # Tensors that forward makes from nothing; fx leaves them at the module that it traced.
        made = {node.target for node in self.graph.nodes if node.op == "get_attr"}
        self.constants = {name: vars(model)[name] for name in made & vars(model).keys()}
        inputs = [node for node in self.graph.nodes if node.op == "placeholder"]
        self.reached = _closure(inputs, lambda node: node.users)
        self.blocks = {node for node in tracer.outputs.values() if node in self.reached}
        every = tracer.outputs | {name: node for node, name in tracer.node_to_qualname.items()}
        self.names = {n: x for n, x in every.items() if x in self.reached and x not in inputs}
        self.output = next(node for node in self.graph.nodes if node.op == "output")

    def name(self, node: fx.Node) -> str:
        """Give a node's shortest name: the outermost block whose output it is."""
        return min((name for name, found in self.names.items() if found is node), key=len)

    def prefix(self, name: str) -> fx.Graph:
        cut = self.names[name]
        nodes = list(self.graph.nodes)
        # Checks of the input's size are nobody's ancestors, and say what is wrong better.
        checks = [node for node in nodes[: nodes.index(cut)] if node.target is torch._assert]
        wanted = _closure([cut, *checks], lambda node: node.all_input_nodes)
        part, copies = fx.Graph(), {}
        for node in self.graph.nodes:
            if node in wanted or node.op == "placeholder":
                copies[node] = part.node_copy(node, copies.__getitem__)
        part.output(copies[cut])
        return part

    def suffix(self, name: str) -> fx.Graph:
        cut = self.names[name]
        part = fx.Graph()
        # A copy, because layers with inplace=True would change the features of a cache.
        copies = {cut: part.call_method("clone", (part.placeholder("features"),))}
        wanted = self._behind(cut)
        for node in self.graph.nodes:
            if node in wanted and node is not cut:
                copies[node] = part.node_copy(node, copies.__getitem__)
        return part

    def crossing(self, cut: fx.Node) -> list[str]:
        """Name the values beside the cut's own that come from the input and are needed behind."""
        after = _closure([cut], lambda node: node.users) | {self.output}
        wanted = self._behind(cut)
        beside = [node for node in self.graph.nodes if node in wanted & self.reached - after]
        crossing = [node for node in beside if wanted & after & node.users.keys()]
        return [node.name if node.op == "placeholder" else self.name(node) for node in crossing]

    def _behind(self, cut: fx.Node) -> set[fx.Node]:
        return _closure([self.output], lambda node: () if node is cut else node.all_input_nodes)


def _closure(start: Iterable[fx.Node], following: Callable) -> set[fx.Node]:
    found, todo = set(), list(start)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo += following(node)
    return found


def _traces(model: nn.Module, node: str) -> dict[bool, _Trace]:
    """Trace a network in both modes, and refuse a node that is not in both."""
    model = unwrap(model)
    # Tracing runs the code between the layers, which may count in buffers: these are copied.
    double = copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})
    try:
        traces = {mode: _Trace(double.train(mode)) for mode in _MODES}
    except Exception as error:  # the network's own code meets values that are no tensors
        raise ValueError(
            f"{type(model).__name__} cannot be traced: {str(error).splitlines()[0]}. Cut a part of "
            "it that has no decisions on values or shapes in its forward"
        ) from error
    for mode, trace in traces.items():
        if node not in trace.names:
            raise ValueError(
                f"{type(model).__name__} has no node {node!r} in {_MODES[mode]} mode; "
                f"{suggest(node, trace.names)}"
            )
    return traces


def _advice(traces: dict[bool, _Trace], node: str) -> str:
    """Name the nearest blocks with a clean cut behind them, one before and one after the node."""
    trace = traces[False]
    order = list(trace.graph.nodes)
    place = order.index(trace.names[node])
    names = {block: trace.name(block) for block in trace.blocks}
    found = []
    for side in (order[:place][::-1], order[place + 1 :]):
        clean = (names[n] for n in side if n in names and _is_clean(traces, names[n]))
        found += [name for name in [next(clean, None)] if name]
    if found:
        return f"Nearest clean cuts: {', '.join(map(repr, found))}"
    return "No cut of this network is clean; compute the features with feature_extractor"


def _is_clean(traces: dict[bool, _Trace], name: str) -> bool:
    return all(name in t.names and not t.crossing(t.names[name]) for t in traces.values())
