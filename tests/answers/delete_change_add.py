"""Right and typically wrong answers to the exercises of *delete, change, add*."""

import copy

import torch
from torch import nn
from torchvision.models import resnet18, squeezenet1_1

from tlbook.surgery import append, delete, get_head, insert_after, replace_head, replace_stem


def builds(function):
    function.builds_answer = True
    return function


@builds
def from_the_back():
    network = squeezenet1_1(weights=None)
    for path in ("features.10", "features.7"):
        delete(network, path)
    return insert_after(network, "features.0", nn.BatchNorm2d(64))


@builds
def from_the_front():
    network = squeezenet1_1(weights=None)
    for path in ("features.7", "features.10"):
        delete(network, path)
    return insert_after(network, "features.0", nn.BatchNorm2d(64))


@builds
def insert_first():
    network = insert_after(squeezenet1_1(weights=None), "features.0", nn.BatchNorm2d(64))
    for path in ("features.10", "features.7"):
        delete(network, path)
    return network


@builds
def behind_the_relu():
    network = from_the_back()
    delete(network, "features.1")
    return insert_after(network, "features.1", nn.BatchNorm2d(64))


@builds
def norm_of_another_width():
    network = from_the_back()
    network.features[1] = nn.BatchNorm2d(128)
    return network


@builds
def norm_never_called():
    network = squeezenet1_1(weights=None)
    for path in ("features.10", "features.7"):
        delete(network, path)
    network.add_module("norm", nn.BatchNorm2d(64))
    return network


@builds
def one_block_still_there():
    return insert_after(
        delete(squeezenet1_1(weights=None), "features.10"), "features.0", nn.BatchNorm2d(64)
    )


@builds
def identities_instead():
    network = squeezenet1_1(weights=None)
    network.features[7] = nn.Identity()
    network.features[10] = nn.Identity()
    return insert_after(network, "features.0", nn.BatchNorm2d(64))


@builds
def another_network():
    return resnet18(weights=None)


def extend(network, layer):
    class Extended(type(network)):
        def forward(self, x):
            return self.extra(super().forward(x))

    network.add_module("extra", layer)
    network.__class__ = Extended
    return network


def extend_the_graph(network, layer):
    traced = torch.fx.symbolic_trace(network)
    traced.add_submodule("extra", layer)
    end = next(node for node in traced.graph.nodes if node.op == "output")
    with traced.graph.inserting_before(end):
        end.args = (traced.graph.call_module("extra", end.args),)
    traced.recompile()
    return traced


def register_only(network, layer):
    network.add_module("extra", layer)
    return network


def nothing_returned(network, layer):
    network.add_module("extra", layer)


def wrap(network, layer):
    return nn.Sequential(network, layer)


def insert(network, layer):
    return insert_after(network, get_head(network).path, layer)


def hook_only(network, layer):
    network.register_forward_hook(lambda module, args, output: layer(output))
    return network


def add_a_layer_of_its_own(network, layer):
    return extend(network, nn.Linear(1000, 5))


def adapt(donor):
    model = replace_head(replace_stem(copy.deepcopy(donor), in_channels=1), 5)
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def optimizer_first(donor):
    model = copy.deepcopy(donor)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return replace_head(replace_stem(model, in_channels=1), 5), optimizer


def the_donor_itself(donor):
    model = replace_head(replace_stem(donor, in_channels=1), 5)
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def shared(donor):
    model = copy.deepcopy(donor, {id(p): p for p in donor.parameters()})
    replace_head(replace_stem(model, in_channels=1), 5)
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def no_head(donor):
    model = replace_stem(copy.deepcopy(donor), in_channels=1)
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def head_by_attribute(donor):
    model = replace_stem(copy.deepcopy(donor), in_channels=1)
    get_head(model).layer.out_features = 5
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def stem_by_attribute(donor):
    model = replace_head(copy.deepcopy(donor), 5)
    next(m for m in model.modules() if isinstance(m, nn.Conv2d)).in_channels = 1
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def no_stem(donor):
    model = replace_head(copy.deepcopy(donor), 5)
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def fresh_stem(donor):
    model = replace_head(replace_stem(copy.deepcopy(donor), in_channels=1, mode="fresh"), 5)
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def rebuilt(donor):
    model = copy.deepcopy(donor)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
    first = next(m for m in donor.modules() if isinstance(m, nn.Conv2d))
    next(m for m in model.modules() if isinstance(m, nn.Conv2d)).load_state_dict(first.state_dict())
    replace_head(replace_stem(model, in_channels=1), 5)
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def layer_that_never_runs(donor):
    model = replace_stem(copy.deepcopy(donor), in_channels=1)
    model.add_module("extra", nn.Linear(1000, 5))
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def layer_that_does_not_fit(donor):
    model, _ = adapt(donor)
    head = get_head(model).path
    replaced = insert_after(model, head, nn.Linear(6, 5))
    return replaced, torch.optim.SGD(model.parameters(), lr=0.01)


def head_only_in_the_optimizer(donor):
    model, _ = adapt(donor)
    return model, torch.optim.SGD(get_head(model).layer.parameters(), lr=0.01)


def frozen(donor):
    model, _ = adapt(donor)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("classifier"))
    model.eval()
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def model_alone(donor):
    return adapt(donor)[0]


def the_wrong_way_round(donor):
    return adapt(donor)[::-1]


RIGHT = {
    "delete_change_add_1": {"a": 4_096, "b": 9_216, "c": 1_000, "d": 0},
    "delete_change_add_2": from_the_back,
    "delete_change_add_3": extend,
    "delete_change_add_4": adapt,
}

WRONG = {
    "delete_change_add_1": [
        {"a": 0, "b": 9_216, "c": 1_000, "d": 0},
        {"a": 9_216, "b": 9_216, "c": 1_000, "d": 0},
        {"a": 8_192, "b": 18_432, "c": 2_000, "d": 0},
        {"a": 4_096, "b": 18_432, "c": 2_000, "d": 0},
        {"a": 4_096, "b": 0, "c": 1_000, "d": 0},
        {"a": 4_096, "b": 256, "c": 1_000, "d": 0},
        {"a": 4_096, "b": 9_216, "c": 5, "d": 0},
        {"a": 4_096, "b": 9_216, "c": 1_000, "d": 1_000},
        {"a": (2, 4_096), "b": 9_216, "c": 1_000, "d": 0},
        {"a": 4_096, "b": 9_216},
        [4_096, 9_216, 1_000, 0],
    ],
    "delete_change_add_2": [
        squeezenet1_1,
        from_the_front,
        insert_first,
        behind_the_relu,
        norm_of_another_width,
        norm_never_called,
        one_block_still_there,
        identities_instead,
        another_network,
    ],
    "delete_change_add_3": [
        register_only,
        nothing_returned,
        wrap,
        insert,
        hook_only,
        add_a_layer_of_its_own,
        append,
    ],
    "delete_change_add_4": [
        optimizer_first,
        the_donor_itself,
        shared,
        no_head,
        head_by_attribute,
        stem_by_attribute,
        no_stem,
        fresh_stem,
        rebuilt,
        layer_that_never_runs,
        layer_that_does_not_fit,
        head_only_in_the_optimizer,
        frozen,
        model_alone,
        the_wrong_way_round,
    ],
}
