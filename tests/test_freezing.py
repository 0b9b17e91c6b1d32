import copy
import pickle
from functools import partial

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torchvision.models import convnext, resnet

from tlbook.freezing import (
    freeze,
    frozen_names,
    is_pinned,
    param_groups,
    trainable_parameters,
    unfreeze,
)
from tlbook.surgery import replace_head

X = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 1, 2, 1])


def small_resnet(norm=nn.BatchNorm2d):
    net = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=3, norm_layer=norm)
    net.layer4 = nn.Identity()
    net.fc = nn.Linear(256, 3)
    return net


def nested():
    def block(n_in, n_out):
        conv = nn.Conv2d(n_in, n_out, 3, stride=2, padding=1)
        return nn.Sequential(nn.Sequential(conv, nn.BatchNorm2d(n_out)), nn.ELU(), nn.Dropout(0.5))

    return nn.Sequential(
        nn.Sequential(block(3, 8), nn.ModuleDict({"inner": block(8, 8)})["inner"]),
        nn.Sequential(block(8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    )


class SharedModule(nn.Module):
    """One block registered under two names, the first of which is frozen."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.once = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.again = self.once
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.again(self.once(self.stem(x))).mean((2, 3)))


class TiedWeight(nn.Module):
    """Two layers with one weight, the first of which is frozen."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, track_running_stats=True)
        )
        self.one, self.two, self.fc = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.fc(self.two(self.one(self.stem(x).mean((2, 3)))))


class Functional(nn.Module):
    """Dropout and statistics that no child module holds."""

    def __init__(self):
        super().__init__()
        self.body = spectral_norm(nn.Conv2d(3, 8, 3))
        self.mid = Averages()
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.mid(self.body(x)).mean((2, 3)))


class Averages(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))
        self.register_buffer("seen", torch.zeros(8))

    def forward(self, x):
        if self.training:
            self.seen += x.detach().mean((0, 2, 3))
        return F.dropout(x, 0.5, self.training) * self.scale[:, None, None]


def vit():
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, dropout=0.1, num_classes=3)


def layer_norm():
    blocks = [convnext.CNBlockConfig(8, 16, 1), convnext.CNBlockConfig(16, None, 1)]
    return convnext.ConvNeXt(blocks, stochastic_depth_prob=0.5, num_classes=3)


# Each network with the names to freeze and one module under them.
NETWORKS = {
    "BatchNorm": (small_resnet, ("conv1", "bn1", "layer1", "layer2")),
    "LayerNorm": (layer_norm, ("features",)),
    "GroupNorm": (lambda: small_resnet(partial(nn.GroupNorm, 4)), ("layer2", "layer3")),
    "SyncBatchNorm": (
        lambda: nn.SyncBatchNorm.convert_sync_batchnorm(small_resnet()),
        ("conv1", "bn1", "layer1"),
    ),
    "nested": (nested, ("0", "1.0.0")),
    "shared module": (SharedModule, ("stem", "once")),
    "tied weight": (TiedWeight, ("stem", "one")),
    "functional": (Functional, ("body", "mid")),
    "ViT": (vit, ("conv_proj", "encoder")),
    "mobile": (
        lambda: torchvision.models.mobilenet_v3_small(num_classes=3),
        ("features", "classifier.0"),
    ),
    "compiled": (
        lambda: torch.compile(small_resnet(), backend="aot_eager"),
        ("conv1", "_orig_mod.bn1", "layer1"),
    ),
}
OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.01, max_iter=2),
}


def run(model, optimizer, steps):
    """Train the way a stranger does, gradients set to zero and not to None."""
    for _ in range(steps):
        model.train()

        def closure():
            optimizer.zero_grad(set_to_none=False)
            loss = F.cross_entropy(model(X), Y)
            loss.backward()
            return loss

        optimizer.step(closure)


def tensors(model, names):
    parts = [model.get_submodule(name) for name in names]
    return [t for part in parts for t in (*part.parameters(), *part.buffers())]


def bits(tensor_list):
    return [t.detach().clone().flatten().contiguous().view(torch.uint8) for t in tensor_list]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_frozen_tensors_stay_to_the_bit(name, optimizer):
    torch.manual_seed(0)
    build, names = NETWORKS[name]
    model = build()
    make = OPTIMIZERS[optimizer]
    held = make(model.parameters())
    # Momentum and gradients from before freezing are what moves "frozen" weights otherwise.
    run(model, held, 2)
    freeze(model, *names)
    frozen = tensors(model, names)
    before, others = bits(frozen), bits(trainable_parameters(model))
    run(model, make(model.parameters()) if optimizer == "LBFGS" else held, 10)
    assert all(map(torch.equal, bits(frozen), before))
    assert not all(map(torch.equal, bits(trainable_parameters(model)), others))
    assert not any(tensor.requires_grad or tensor.grad is not None for tensor in frozen)


def test_the_same_loop_moves_what_is_only_switched_off():
    torch.manual_seed(0)
    model = small_resnet()
    optimizer = OPTIMIZERS["SGD"](model.parameters())
    run(model, optimizer, 2)
    model.layer1.requires_grad_(False)
    before = bits(tensors(model, ["layer1"]))
    run(model, optimizer, 1)
    assert not any(map(torch.equal, bits(tensors(model, ["layer1"]))[:2], before[:2]))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_frozen_part_is_a_fixed_function(name):
    torch.manual_seed(0)
    build, _ = NETWORKS[name]
    model = freeze(build()).train()
    assert torch.equal(model(X), model(X))
    assert frozen_names(model) == [""]
    assert trainable_parameters(model) == []


def snapshot(model):
    return (
        [(n, m.training, sorted(m.__dict__)) for n, m in model.named_modules()],
        [(n, p.requires_grad) for n, p in model.named_parameters()],
        list(model.state_dict()),
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_unfreeze_is_the_exact_inverse(name):
    build, names = NETWORKS[name]
    model = build()
    next(model.parameters()).requires_grad_(False)
    part = model.get_submodule(names[-1])
    part.eval()
    before = snapshot(model)
    freeze(model, *names)
    assert snapshot(model)[2] == before[2]
    assert snapshot(model) != before
    freeze(freeze(model), names[0])
    assert snapshot(unfreeze(model)) == before
    assert snapshot(unfreeze(freeze(model, *names), *names)) == before


def test_unfreezing_gives_the_mode_asked_for_meanwhile():
    model = freeze(small_resnet(), "layer1").eval()
    unfreeze(model)
    assert not any(module.training for module in model.modules())
    freeze(model, "layer1").train()
    unfreeze(model)
    assert all(module.training for module in model.modules())


def test_unfreeze_one_of_several():
    model = freeze(small_resnet())
    unfreeze(model, "layer3", "fc")
    assert frozen_names(model) == ["conv1", "bn1", "layer1", "layer2"]
    model.train()
    assert model.layer3[0].bn1.training
    assert not model.layer2[0].bn1.training
    assert len(trainable_parameters(model)) == len([*model.layer3.parameters()]) + 2


def test_a_tied_weight_moves_only_when_nothing_holds_it():
    model = freeze(freeze(TiedWeight(), "one"), "two")
    unfreeze(model, "one")
    assert not model.one.weight.requires_grad
    assert model.one.bias.requires_grad
    unfreeze(model, "two")
    assert model.one.weight.requires_grad


def test_a_new_head_in_a_frozen_network_trains():
    model = replace_head(freeze(torchvision.models.mobilenet_v3_small()), 3)
    model.train()
    assert model.training
    assert not model.features[0].training
    assert len(trainable_parameters(model)) == 2
    assert "" not in frozen_names(model)
    model.eval()
    assert not model.training


@pytest.mark.parametrize("name", NETWORKS)
def test_copies_stay_frozen_and_independent(name):
    torch.manual_seed(0)
    build, names = NETWORKS[name]
    model = freeze(build(), *names)
    copies = [copy.deepcopy(model)]
    # PyTorch itself refuses to pickle spectral_norm's parametrized convolution.
    if name not in ("compiled", "functional"):
        copies.append(pickle.loads(pickle.dumps(model)))
    for other in copies:
        optimizer = OPTIMIZERS["SGD"](other.parameters())
        frozen = tensors(other, names)
        before = bits(frozen)
        run(other, optimizer, 2)
        assert all(map(torch.equal, bits(frozen), before))
        assert frozen_names(other) == frozen_names(model)
        unfreeze(other)
        assert frozen_names(other) == []
    assert frozen_names(model) != []


def test_frozen_after_compiling_and_unfrozen_again():
    torch.manual_seed(0)
    model = small_resnet()
    compiled = torch.compile(model, backend="aot_eager")
    optimizer = OPTIMIZERS["SGD"](model.parameters())
    for step in (freeze, unfreeze, freeze):
        step(model, "layer1")
        before = bits(tensors(model, ["layer1"]))
        run(compiled, optimizer, 2)
        moved = not any(map(torch.equal, bits(tensors(model, ["layer1"])), before))
        assert moved == (step is unfreeze)


def test_names_are_those_of_the_network_that_was_compiled():
    compiled = freeze(torch.compile(small_resnet(), backend="eager"), "layer1")
    assert frozen_names(compiled) == frozen_names(compiled._orig_mod) == ["layer1"]
    (rest, fc) = param_groups(compiled, {"fc": 1.0}, lr=0.1)
    assert len(fc["params"]) == 2
    assert rest["lr"] == 0.1


def test_compiled_and_plain_agree():
    torch.manual_seed(0)
    model = freeze(small_resnet(), "conv1", "bn1", "layer1").train()
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
    assert torch.allclose(model(X), compiled(X), atol=1e-5)


def test_saved_and_loaded_states_fit_either_way(tmp_path):
    model, other = small_resnet(), freeze(small_resnet(), "layer1")
    other.load_state_dict(model.state_dict())
    torch.save(other, tmp_path / "whole.pt")
    loaded = torch.load(tmp_path / "whole.pt", weights_only=False)
    assert frozen_names(loaded) == ["layer1"]
    assert not loaded.train().layer1.training


def test_a_class_with_its_own_train_keeps_it():
    class Own(nn.Linear):
        def train(self, mode=True):
            self.switched = mode
            return super().train(mode)

    model = freeze(nn.Sequential(Own(2, 2)), "0")
    model.train()
    assert model[0].switched
    assert not model[0].training


@pytest.mark.parametrize("change", [freeze, unfreeze])
def test_unknown_names_change_nothing(change):
    model = freeze(small_resnet(), "layer2")
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"'layer5'; nearest: .*'layer"):
        change(model, "layer1", "layer5")
    with pytest.raises(ValueError, match="'relu7'"):
        change(model, "relu7")
    assert snapshot(model) == before


def test_frozen_names_are_what_freeze_takes():
    model = freeze(nested(), "0.0", "0.1", "1.0.0.1")
    assert frozen_names(model) == ["0.0", "0.1", "1.0.0.1"]
    assert snapshot(freeze(nested(), *frozen_names(model)))[1] == snapshot(model)[1]
    assert frozen_names(small_resnet().requires_grad_(False)) == []
    model[0][0][0][0].weight.requires_grad_(True)
    assert frozen_names(model)[:2] == ["0.0.0.1", "0.1"]
    assert is_pinned(model[0][0])


def ids(parameters):
    return sorted(id(p) for p in parameters)


def grouped(groups):
    return ids(p for group in groups for p in group["params"])


@pytest.mark.parametrize("layer_decay", [None, 0.7])
@pytest.mark.parametrize("spare", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_trainable_parameter_is_in_one_group(name, spare, layer_decay):
    build, names = NETWORKS[name]
    model = freeze(build(), *names)
    groups = param_groups(model, lr=0.1, layer_decay=layer_decay, no_decay_on_norms=spare)
    assert grouped(groups) == ids(trainable_parameters(model))
    torch.optim.AdamW(groups)


def test_longest_prefix_wins_and_is_no_mere_beginning():
    model = nn.Module()
    model.fc, model.fc2 = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 2)
    groups = param_groups(model, {"fc.1": 3.0, "fc": 2.0, "fc.1.bias": 4.0}, lr=1.0)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    found = [rates[id(p)] for p in model.parameters()]
    assert found == [2.0, 2.0, 3.0, 4.0, 1.0, 1.0]


def test_what_is_not_given_is_left_to_the_optimizer():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    groups = param_groups(model, {"1": 0.5}, no_decay_on_norms=True)
    optimizer = torch.optim.AdamW(groups, lr=0.2, weight_decay=0.3)
    found = [(g["name"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    assert found == [("rest", 0.2, 0.3), ("1, norms", 0.5, 0.0)]


def test_a_tied_weight_goes_with_either_name():
    model = TiedWeight()
    groups = param_groups(model, {"two": 9.0}, lr=1.0)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert rate[id(model.one.weight)] == 9.0
    assert rate[id(model.one.bias)] == 1.0


def test_norms_are_found_in_all_kinds():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.GroupNorm(1, 2), nn.LayerNorm(2), nn.RMSNorm(2))
    (group,) = param_groups(model, weight_decay=0.1, no_decay_on_norms=True)
    assert group["weight_decay"] == 0.0
    (group,) = param_groups(model, weight_decay=0.1)
    assert group["weight_decay"] == 0.1


def test_unknown_prefixes_are_refused_and_frozen_ones_are_not():
    model = freeze(small_resnet(), "layer1")
    with pytest.raises(ValueError, match=r"'layer5'; nearest: .*'layer"):
        param_groups(model, {"layer5": 0.1})
    with pytest.raises(ValueError, match="'lay'"):
        param_groups(model, {"lay": 0.1})
    assert grouped(param_groups(model, {"layer1": 0.1})) == ids(trainable_parameters(model))


def rates_by_layer(model, **options):
    return {g["name"]: g["lr"] for g in param_groups(model, lr=1.0, layer_decay=0.5, **options)}


def test_layer_decay_halves_from_layer_to_layer():
    found = rates_by_layer(torchvision.models.resnet18())
    blocks = [f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)]
    assert list(found) == ["conv1", *blocks, "fc"]
    assert list(found.values()) == [0.5**i for i in reversed(range(10))]


def test_layer_decay_opens_the_trunk_and_counts_frozen_layers():
    model = vit()
    found = rates_by_layer(model)
    assert list(found.values()) == [0.125, 0.25, 0.5, 1.0]
    (early,) = (g for g in param_groups(model, lr=1.0, layer_decay=0.5) if g["lr"] == 0.125)
    assert any(p is model.class_token for p in early["params"])
    part = rates_by_layer(freeze(model, "conv_proj", "encoder.layers.encoder_layer_0"))
    assert part["encoder.layers.encoder_layer_1"] == 0.5


def test_layer_decay_leaves_given_rates_and_auxiliary_heads():
    model = torchvision.models.googlenet(init_weights=False)
    found = param_groups(model, {"inception3a": 7.0}, lr=1.0, layer_decay=0.5)
    rate = {g["name"]: g["lr"] for g in found}
    assert rate["inception3a"] == 7.0
    assert rate["inception5b"] == 0.5
    assert {id(p) for p in model.aux1.parameters()} < {id(p) for p in found[-1]["params"]}
    with pytest.raises(ValueError, match="expected a learning rate"):
        param_groups(model, layer_decay=0.5)
