import copy
from functools import cache

import pytest
import timm
import torch
import torchvision
from accelerate import init_empty_weights
from torch import nn
from torchvision.models import convnext

from tlbook.surgery import (
    adapt_in_channels,
    append,
    delete,
    get_head,
    insert_after,
    replace,
    replace_head,
    replace_stem,
    truncate_after,
)

BUILDERS = torchvision.models.list_models(module=torchvision.models)
# Sides of the smallest square image that forward accepts; one pixel where no prefix matches.
SMALLEST = {
    "alexnet": 63,
    "convnext": 32,
    "densenet": 29,
    "googlenet": 15,
    "inception": 75,
    "maxvit": 224,
    "squeezenet1_0": 21,
    "squeezenet1_1": 17,
    "swin": 4,
    "vgg": 32,
    "vit": 224,
}
# Slim members of families whose smallest builder takes seconds to fill with random numbers.
SLIM = {
    "convnext": lambda: convnext.ConvNeXt([convnext.CNBlockConfig(16, None, 2)]),
    "swin": lambda: torchvision.models.SwinTransformer([4, 4], 16, [2], [2], [4, 4]),
    "vit": lambda: torchvision.models.VisionTransformer(224, 32, 2, 2, 32, 64),
}
FOR_REAL = [
    "densenet121", "efficientnet_b0", "googlenet", "mnasnet0_5", "mobilenet_v2", "resnet18",
    "mobilenet_v3_small", "regnet_y_400mf", "shufflenet_v2_x0_5", "squeezenet1_1", *SLIM,
]  # fmt: skip


def side(name):
    return next((size for prefix, size in SMALLEST.items() if name.startswith(prefix)), 1)


def _build(name):
    if name in SLIM:
        return SLIM[name]()
    # Both warn that their slow initialisation will go, unless told what to do.
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **extra)


@cache
def _weightless(name):
    with init_empty_weights():
        return _build(name).to("meta").eval()


@cache
def _real(name):
    torch.manual_seed(0)
    return _build(name).eval()


def built(name, device="meta"):
    return copy.deepcopy(_weightless(name) if device == "meta" else _real(name))


def images(name, n=2, channels=3, device="meta"):
    return torch.rand(n, channels, side(name), side(name)).to(device)


def keys(model):
    return list(model.state_dict())


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_takes_a_new_head_and_one_channel(name):
    model = _weightless.__wrapped__(name)
    before = keys(model)
    assert replace_head(model, 7) is model
    assert get_head(model).layer.weight.shape[0] == 7
    assert replace_stem(model, in_channels=1) is model
    assert model(images(name, 2, 1)).shape == (2, 7)
    assert keys(model) == before


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_takes_more_channels_and_small_images_or_says_why(name):
    model = _weightless.__wrapped__(name)
    for channels in (4, 12):
        replace_stem(model, in_channels=channels)
        assert next(p for p in model.parameters() if p.ndim == 4).shape[1] == channels
    if name.startswith(("convnext", "swin", "vit")):
        with pytest.raises(ValueError, match="cuts patches"):
            replace_stem(model, in_channels=3, small_input=True)
    else:
        replace_stem(model, in_channels=3, small_input=True)


@pytest.mark.parametrize("name", FOR_REAL)
def test_new_head_gives_finite_trainable_logits(name):
    model = replace_head(built(name, "cpu"), 5)
    logits = model(images(name, device="cpu"))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()
    logits.sum().backward()
    assert get_head(model).layer.weight.grad is not None


@pytest.mark.parametrize(
    ("name", "size", "twins"),
    [("googlenet", 32, ("aux1.fc2", "aux2.fc2")), ("inception_v3", 299, ("AuxLogits.fc",))],
)
def test_auxiliary_heads_change_too(name, size, twins):
    model = replace_head(built(name), 3).train()
    assert get_head(model).twins == twins
    outputs = model(torch.rand(2, 3, size, size, device="meta"))
    assert [tuple(out.shape) for out in outputs] == [(2, 3)] * (1 + len(twins))


def test_squeezenet_has_a_convolution_as_head():
    model = replace_head(built("squeezenet1_0"), 9)
    assert isinstance(model.classifier[1], nn.Conv2d)
    assert model.num_classes == 9


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224",
             "convnext_atto", "levit_128s", "crossvit_9_240", "mobilenetv4_conv_small"]
)  # fmt: skip
def test_timm_networks_take_a_new_head(name):
    with torch.device("meta"):
        model = timm.create_model(name).eval()
        x = torch.zeros(2, *model.default_cfg["input_size"])
    replace_head(model, 4)
    assert model(x).shape == (2, 4)
    assert model.num_classes == 4


def test_a_distilled_network_has_two_heads():
    with torch.device("meta"):
        model = timm.create_model("deit_tiny_distilled_patch16_224")
    replace_head(model, 4)
    assert model.head.out_features == model.head_dist.out_features == 4


def test_no_head_is_said_not_guessed():
    headless = nn.Sequential(*list(built("resnet18").children())[:-1])
    with pytest.raises(ValueError, match=r"7\.1\.bn2"):
        get_head(headless)
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    with pytest.raises(ValueError, match="without a classifier"):
        replace_head(model, 3)


def test_new_head_is_like_the_old_one():
    model = built("resnet18", "cpu").to(torch.float64)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    replace_head(model, 3)
    assert model.fc.weight.dtype == torch.float64
    assert model.fc.weight.requires_grad
    assert not model.fc.training
    assert replace_head(built("maxvit_t"), 3).classifier[5].bias is None


def test_own_head_is_tried_before_it_goes_in():
    model = built("resnet18", "cpu")
    mlp = nn.Sequential(nn.BatchNorm1d(512), nn.Dropout(), nn.Linear(512, 32), nn.Linear(32, 3))
    before = copy.deepcopy(mlp.state_dict())
    replace_head(model, 3, head=mlp)
    assert model.fc is mlp
    assert all(torch.equal(before[key], value) for key, value in mlp.state_dict().items())
    assert get_head(model).path == "fc.3"
    assert replace_head(model, 6)(images("resnet18", device="cpu")).shape == (2, 6)


@pytest.mark.parametrize(
    ("head", "words"),
    [(nn.Linear(512, 4), r"gives \(2, 4\).*expected \(2, 3\)"), (nn.Linear(64, 3), "512 features")],
)
def test_a_head_that_does_not_fit_changes_nothing(head, words):
    model = built("resnet18", "cpu")
    old = model.fc
    with pytest.raises(ValueError, match=words):
        replace_head(model, 3, head=head)
    with pytest.raises(ValueError, match="at least 1 class"):
        replace_head(model, 0)
    assert model.fc is old


@pytest.mark.parametrize("name", FOR_REAL)
def test_sum_answers_grey_as_the_colour_network_does(name):
    grey = images(name, 2, 1, "cpu")
    colour = _real(name)(grey.repeat(1, 3, 1, 1))
    for channels in (1, 3, 4, 12):
        model = replace_stem(built(name, "cpu"), in_channels=channels)
        found = model(grey.repeat(1, channels, 1, 1))
        assert torch.allclose(found, colour, atol=1e-5, rtol=1e-5)


def test_modes_by_hand():
    conv = nn.Conv2d(3, 8, 5, bias=False)
    weight = conv.weight.detach()
    one = {mode: adapt_in_channels(conv, 1, mode=mode).weight for mode in ("sum", "mean", "fresh")}
    assert torch.allclose(one["sum"], weight.sum(1, keepdim=True))
    assert torch.allclose(one["mean"], weight.mean(1, keepdim=True))
    assert not torch.allclose(one["fresh"], one["sum"], atol=1e-3)
    four = adapt_in_channels(conv, 4, mode="repeat").weight
    assert torch.allclose(four, weight[:, [0, 1, 2, 0]] * 3 / 4)
    assert torch.equal(adapt_in_channels(conv, 3, mode="mean").weight, weight)
    assert not torch.equal(adapt_in_channels(conv, 3, mode="fresh").weight, weight)
    assert torch.equal(conv.weight, weight)


@pytest.mark.parametrize(
    ("conv", "n", "mode", "words"),
    [
        (nn.Conv2d(3, 8, 3), 0, "sum", "at least 1"),
        (nn.Conv2d(3, 8, 3), 1, "average", "sum, mean, repeat, fresh"),
        (nn.Conv2d(4, 8, 3, groups=4), 1, "sum", "4 groups"),
    ],
)
def test_adapt_refuses(conv, n, mode, words):
    with pytest.raises(ValueError, match=words):
        adapt_in_channels(conv, n, mode=mode)


@pytest.mark.parametrize("mode", ["sum", "fresh"])
def test_adapting_goes_by_the_weights_not_by_an_attribute_that_lies(mode):
    model = torchvision.models.resnet18()
    model.conv1.in_channels = 1
    replace_stem(model, in_channels=1, mode=mode)
    assert model.conv1.weight.shape == (64, 1, 7, 7)
    assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 1000)
    model.fc.in_features = 256
    assert replace_head(model, 3)(torch.zeros(1, 1, 64, 64)).shape == (1, 3)


def test_adapted_convolution_keeps_its_kind_and_its_frozen_weights():
    model = timm.create_model("tf_efficientnet_lite0").eval()
    kind = type(model.conv_stem)
    model.conv_stem.weight.requires_grad_(False)
    replace_stem(model, in_channels=1)
    assert type(model.conv_stem) is kind is not nn.Conv2d
    assert not model.conv_stem.weight.requires_grad
    assert model(torch.zeros(1, 1, 32, 32)).shape == (1, 1000)
    replace_stem(model, in_channels=2, mode="fresh")
    assert model.conv_stem.weight.requires_grad


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "googlenet", "shufflenet_v2_x0_5"])
def test_small_input_keeps_size_and_kernel_centre(name):
    model, before = built(name, "cpu"), keys(_real(name))
    first = next(module for module in _real(name).modules() if isinstance(module, nn.Conv2d))
    replace_stem(model, small_input=True)
    stem = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    edge = (first.kernel_size[0] - 3) // 2
    inside = slice(edge, first.kernel_size[0] - edge)
    assert torch.equal(stem.weight, first.weight[:, :, inside, inside])
    assert stem(torch.zeros(1, 3, 32, 32)).shape[2:] == (32, 32)
    pools = [m for m in model.modules() if isinstance(m, nn.MaxPool2d)]
    assert len(pools) == sum(isinstance(m, nn.MaxPool2d) for m in _real(name).modules()) - 1
    assert keys(model) == before
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)


def test_small_input_leaves_a_network_that_is_already_fine():
    model = replace_stem(built("vgg11"), small_input=True)
    assert str(model) == str(_weightless("vgg11"))
    twice = [replace_stem(built("resnet18"), small_input=True) for _ in range(2)]
    assert str(replace_stem(twice[0], small_input=True)) == str(twice[1])


@pytest.mark.parametrize("name", ["convnext_tiny", "swin_t", "swin_v2_t", "vit_b_32", "vit_h_14"])
def test_patches_have_no_small_stem(name):
    model = built(name)
    with pytest.raises(ValueError, match="cuts patches"):
        replace_stem(model, small_input=True, in_channels=1)
    assert str(model) == str(_weightless(name))


def test_stem_refuses_what_it_cannot_keep():
    model = built("googlenet")
    model.transform_input = True
    with pytest.raises(ValueError, match="transform_input"):
        replace_stem(model, in_channels=1)
    with pytest.raises(ValueError, match="no Conv2d"):
        replace_stem(nn.Sequential(nn.Linear(2, 2)), in_channels=1)


class Net(nn.Module):
    """Every kind of parent: named and numbered containers, nested, and plain attributes."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), nn.Linear(4, 4)
        )
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.ELU()) for _ in range(3))
        self.named = nn.Sequential()
        self.named.add_module("first", nn.Linear(4, 4))
        self.named.add_module("last", nn.Tanh())
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = self.body(x)
        for block in self.blocks:
            x = block(x)
        return self.fc(self.named(x))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


X = torch.ones(3, 4)


def test_delete_renumbers_and_keeps_the_right_weights(net):
    last, block = net.body[0][2].weight, net.blocks[2][0].weight
    assert delete(net, "body.0.1") is net
    delete(net, "blocks.0")
    delete(net, "named.first")
    assert net.body[0][1].weight is last
    assert net.blocks[1][0].weight is block
    assert [name for name, _ in net.named.named_children()] == ["last"]
    assert [k for k in keys(net) if k.startswith(("blocks", "body.0"))] == [
        "body.0.0.weight", "body.0.0.bias", "body.0.1.weight", "body.0.1.bias",
        "blocks.0.0.weight", "blocks.0.0.bias", "blocks.1.0.weight", "blocks.1.0.bias",
    ]  # fmt: skip
    assert net(X).shape == (3, 2)


def test_delete_elsewhere_leaves_an_identity(net):
    assert isinstance(delete(net, "fc").fc, nn.Identity)
    assert net(X).shape == (3, 4)
    alexnet = delete(built("alexnet"), "classifier")
    assert alexnet(images("alexnet")).shape == (2, 9216)


def test_what_forward_loops_over_stays_a_list(net):
    assert len(delete(net, "blocks").blocks) == 0
    assert torch.equal(net(X), net.fc(net.named(net.body(X))))


def test_delete_keeps_a_layer_that_appears_twice():
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(2, 2), relu, nn.Linear(2, 2), relu, nn.Tanh())
    delete(model, "4")
    assert [type(m) for m in model] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU]


def test_replace_changes_one_path(net):
    before = keys(net)
    replace(net, "blocks.1.1", nn.Tanh())
    replace(net, "fc", nn.Linear(4, 5))
    assert isinstance(net.blocks[1][1], nn.Tanh)
    assert keys(net) == before
    assert net(X).shape == (3, 5)


def test_insert_after_in_every_kind_of_parent(net):
    one, two, three, four = (nn.Linear(4, 4) for _ in range(4))
    insert_after(net, "body.0.0", one)
    insert_after(net, "blocks.0", two)
    insert_after(net, "named.first", three, name="second")
    insert_after(net, "fc", four)
    assert net.body[0][1] is one
    assert net.blocks[1] is two
    assert list(net.named._modules) == ["first", "second", "last"]
    assert net.fc[1] is four
    assert "fc.0.weight" in keys(net)
    with pytest.raises(RuntimeError, match="shapes"):
        net(X)
    assert replace(net, "fc.1", nn.Linear(2, 2))(X).shape == (3, 2)


def test_inserted_layers_run(net):
    ran = []
    for path in ("body.0.0", "blocks.2", "named", "body"):
        layer = nn.Identity()
        layer.register_forward_hook(lambda *_, path=path: ran.append(path))
        insert_after(net, path, layer)
    net(X)
    assert sorted(ran) == ["blocks.2", "body", "body.0.0", "named"]


def test_append(net):
    append(net, "body.0", nn.Linear(4, 4))
    append(net, "named", nn.Linear(4, 4), name="more")
    append(net, "blocks", nn.Identity())
    assert len(net.body[0]) == 4
    assert list(net.named._modules)[-1] == "more"
    assert net(X).shape == (3, 2)
    assert append(nn.Sequential(nn.Linear(4, 4)), "", nn.ReLU())(X).min() >= 0
    with pytest.raises(ValueError, match="insert_after"):
        append(net, "", nn.Linear(2, 2))


def test_new_layers_take_on_the_training_mode(net):
    net.eval()
    insert_after(net, "fc", nn.Dropout())
    append(net, "body", nn.Dropout())
    assert not any(module.training for module in net.modules())


def test_truncate_after(net):
    truncate_after(net, "body.0.1")
    assert keys(net) == ["body.0.0.weight", "body.0.0.bias"]
    assert torch.equal(net(X), net.body[0](X))


@pytest.mark.parametrize(
    ("name", "path", "shape"),
    [
        ("resnet18", "layer2", (2, 128 * 8 * 8)),
        ("resnet50", "layer3.2", (2, 1024 * 4 * 4)),
        ("vgg16", "features.9", (2, 128 * 16 * 16)),
        ("densenet121", "features.denseblock2", (2, 512)),
        ("efficientnet_b0", "features.3", (2, 40 * 8 * 8)),
        ("squeezenet1_1", "features.5", (2, 128 * 7 * 7)),
    ],
)
def test_truncated_builders_still_run(name, path, shape):
    model = truncate_after(built(name), path)
    assert model(torch.zeros(2, 3, 64, 64, device="meta")).shape == shape
    assert all(k.startswith(tuple(keys(_weightless(name)))) for k in keys(model))


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: delete(m, "bodi.0.1"),
        lambda m: delete(m, ""),
        lambda m: replace(m, "blocks.3", nn.ReLU()),
        lambda m: replace(m, "fc", nn.ReLU),
        lambda m: insert_after(m, "body.0.1", "relu"),
        lambda m: insert_after(m, "body.0.1", nn.ReLU(), name="relu"),
        lambda m: insert_after(m, "named.first", nn.ReLU()),
        lambda m: insert_after(m, "named.first", nn.ReLU(), name="last"),
        lambda m: insert_after(m, "fc", nn.ReLU),
        lambda m: append(m, "fc", nn.ReLU()),
        lambda m: append(m, "named", nn.ReLU(), name="a.b"),
        lambda m: truncate_after(m, "body.2"),
        lambda m: replace_stem(m, in_channels=1),
        lambda m: replace_head(m, -1),
    ],
)
def test_a_failed_edit_leaves_the_network_untouched(net, edit):
    modules, state = dict(net.named_modules()), copy.deepcopy(net.state_dict())
    with pytest.raises((ValueError, TypeError)):
        edit(net)
    assert dict(net.named_modules()) == modules
    assert all(torch.equal(state[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_a_compiled_network_is_edited_inside(net, prefix):
    compiled = torch.compile(net, backend="eager")
    replace(compiled, f"{prefix}blocks.0.0", nn.Linear(4, 4))
    insert_after(compiled, f"{prefix}fc", nn.Linear(2, 7))
    assert replace_head(compiled, 3) is compiled
    assert get_head(compiled).path == "fc.1"
    assert compiled(X).shape == (3, 3)
    assert "fc" not in compiled._modules
    with pytest.raises(ValueError, match="Net has no module"):
        delete(compiled, f"{prefix}fd")


def test_a_wrong_path_names_the_nearest(net):
    with pytest.raises(ValueError, match="no module 'forward'"):
        delete(net, "forward")
    with pytest.raises(ValueError, match=r"Net has no module 'block\.1'; nearest: .*'blocks\.1'"):
        delete(net, "block.1")
