import copy
from functools import cache
from html.parser import HTMLParser

import pytest
import timm
import torch
import torchvision
from accelerate import init_empty_weights
from torch import nn

from tlbook.freezing import freeze, frozen_names, unfreeze
from tlbook.surgery import audit, get_head, replace, replace_head, replace_stem

FIVE = ["resnet18", "vgg11_bn", "shufflenet_v2_x0_5", "mnasnet0_5", "mobilenet_v3_small"]
# Networks whose own children hold one convolution of many.
CONV_IN_FRONT = ["resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "Own"]
UNTOUCHED = torchvision.models.list_models(module=torchvision.models)
UNTOUCHED_TIMM = ["tf_efficientnet_lite0", "vit_tiny_patch16_224", "convnext_atto"]


class Own(nn.Module):
    """What a reader might write: layers by name, a block, a convolution in front."""

    def __init__(self, classes=5):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout())
        self.fc = nn.Linear(8, classes)

    def forward(self, x):
        return self.fc(self.block(self.norm(self.conv(x)).relu()).mean((2, 3)))


@cache
def _weightless(name):
    with init_empty_weights():
        return _build(name).to("meta")


def _build(name):
    if name == "Own":
        return Own()
    if name in UNTOUCHED_TIMM:
        return timm.create_model(name)
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **extra)


def built(name):
    return copy.deepcopy(_weightless(name))


def images(name="", channels=3):
    side = 299 if name == "inception_v3" else 224 if name.startswith(("maxvit", "vit")) else 64
    return torch.zeros(1, channels, side, side, device="meta")


def only_finding(model, *args, **options):
    (finding,) = audit(model, images(), *args, **options).findings
    return finding


def first_conv(model):
    return next((p, m) for p, m in model.named_modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize("name", UNTOUCHED + UNTOUCHED_TIMM)
def test_no_false_alarm(name):
    model = built(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = audit(model, images(name), optimizer, donors=[_weightless(name)])
    assert found.findings == ()
    assert found.ok
    assert found.frozen == 0
    assert found.trainable == sum(p.numel() for p in model.parameters())
    assert found.stages[-1].path.split(".")[0] == get_head(model).path.split(".")[0]


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "efficientnet_b0", "Own"])
def test_no_false_alarm_in_evaluation(name):
    assert audit(built(name).eval(), images(name)).findings == ()


@pytest.mark.parametrize("name", FIVE)
def test_k1_a_part_that_forward_misses(name):
    model = built(name)
    part = get_head(model).path.split(".")[0]
    delattr(model, part)
    finding = only_finding(model)
    assert (finding.check, finding.place) == ("forward fails", "")
    assert f"no attribute '{part}'" in finding.detail


@pytest.mark.parametrize("name", FIVE)
def test_k2_an_attribute_that_lies(name):
    model = built(name)
    path, conv = first_conv(model)
    conv.in_channels = 1
    finding = only_finding(model)
    assert (finding.check, finding.place) == ("attribute", path)
    assert "in_channels says 1" in finding.detail
    assert "make it 3" in finding.detail
    # With the images the reader meant, forward fails at the same place.
    both = audit(model, images(channels=1)).findings
    assert [(f.check, f.place) for f in both] == [("forward fails", path), ("attribute", path)]


@pytest.mark.parametrize("layer", [nn.Linear(1000, 3), nn.Dropout(), nn.Sequential(nn.ReLU())])
@pytest.mark.parametrize("name", FIVE)
def test_k3_a_layer_that_never_runs(name, layer):
    model = built(name)
    model.add_module("extra", copy.deepcopy(layer))
    finding = only_finding(model)
    assert (finding.check, finding.place) == ("never called", "extra")


def test_k3_inside_a_block():
    model = built("resnet18")
    model.layer2[1].add_module("extra", nn.Linear(3, 3))
    model.layer3[0].add_module("more", nn.Dropout())
    found = audit(model, images()).findings
    assert [f.place for f in found] == ["layer2.1.extra", "layer3.0.more"]


@pytest.mark.parametrize("name", FIVE)
def test_k4_sizes_that_do_not_meet(name):
    model = built(name)
    path, layer, _ = get_head(model)
    replace(model, path, nn.Linear(layer.in_features + 1, 3, device="meta"))
    finding = only_finding(model)
    assert (finding.check, finding.place) == ("forward fails", path)
    assert f"input (1, {layer.in_features})" in finding.detail


@pytest.mark.parametrize("name", FIVE)
def test_k4_after_an_earlier_change(name):
    model = built(name)
    path, conv = first_conv(model)
    layers = [p for p, m in model.named_modules() if next(m.parameters(False), None) is not None]
    shape = (3, conv.out_channels + 1, conv.kernel_size, conv.stride, conv.padding)
    replace(model, path, nn.Conv2d(*shape, device="meta"))
    finding = only_finding(model)
    assert (finding.check, finding.place) == ("forward fails", layers[layers.index(path) + 1])


@pytest.mark.parametrize("name", CONV_IN_FRONT)
def test_k9_children_are_not_modules(name):
    model = built(name)
    for child in model.children():
        if isinstance(child, nn.Conv2d):
            child.requires_grad_(False)
    found = audit(model, images())
    (finding,) = found.findings
    convs = sum(isinstance(m, nn.Conv2d) for m in model.modules())
    assert (finding.check, finding.place) == ("partly frozen", first_conv(model)[0])
    assert found.layers["Conv2d"] == (1, convs)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.requires_grad_(False)
    assert audit(model, images()).ok


def test_k9_a_stem_frozen_on_purpose_is_fine():
    assert audit(freeze(built("resnet18"), "conv1", "bn1"), images()).ok


@pytest.mark.parametrize("name", FIVE)
def test_k10_batchnorm_that_moves(name):
    model = built(name).requires_grad_(False)
    replace_head(model, 3)
    for mode in (True, False):
        finding = only_finding(model.train(mode))
        assert finding.check == "BatchNorm moves"
        norms = [p for p, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
        assert finding.place.startswith(", ".join(norms[:3]))
    assert audit(replace_head(freeze(built(name)), 3), images()).ok


def test_k10_without_weights_of_its_own_or_held_by_hand():
    class Held(Own):
        def train(self, mode=True):
            super().train(mode)
            self.norm.eval()
            self.block.eval()
            return self

    with torch.device("meta"):
        own, held = Own(), Held()
        own.block[1] = nn.BatchNorm2d(8, affine=False)
    own.block.requires_grad_(False)
    assert only_finding(own).place == "block.1"
    held.requires_grad_(False)
    assert audit(held, images()).ok


@pytest.mark.parametrize("name", FIVE)
def test_k11_an_optimizer_with_the_old_head(name):
    model = built(name)
    optimizer = torch.optim.AdamW(model.parameters())
    replace_head(model, 3)
    gone, left = audit(model, images(), optimizer).findings
    assert (gone.check, gone.place) == ("not in the network", "(optimizer)")
    assert "(1000," in gone.detail
    assert left.check == "not in the optimizer"
    assert get_head(model).path.startswith(left.place) and left.place
    assert audit(model, images(), torch.optim.AdamW(model.parameters())).ok


@pytest.mark.parametrize("name", [*FIVE, "Own"])
def test_k13_a_block_that_belongs_to_the_donor(name):
    model, donor = built(name), built(name)
    blocks = [p for p, m in model.named_modules() if isinstance(m, nn.Sequential)]
    block = next(p for p in blocks if next(model.get_submodule(p).parameters(), None) is not None)
    replace(model, block, donor.get_submodule(block))
    finding = only_finding(model, donors=[built(name), donor])
    assert finding.check == "shared weights"
    assert "of donor 1" in finding.detail
    assert finding.place.startswith(block.split(".")[0])
    replace(model, block, copy.deepcopy(donor.get_submodule(block)))
    assert audit(model, images(), donors=[donor]).ok


def test_k13_inside_one_network():
    block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    found = audit(nn.Sequential(block, block, nn.Linear(4, 4)), torch.zeros(1, 4)).findings
    assert [(f.check, f.place, f.detail) for f in found] == [
        ("shared weights", "1", "the same parameters as 0")
    ]
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = nn.Parameter(tied[0].weight.data)
    assert audit(tied, torch.zeros(1, 4)).findings[0].place == "1"


def test_donor_under_another_name():
    donor = built("resnet18")
    model = nn.Sequential(donor.conv1, nn.Sequential(donor.layer1, nn.Flatten()))
    finding = only_finding(model, donors=[donor])
    assert finding.place == "0, 1.0"
    assert "conv1, layer1 of donor 0 (ResNet)" in finding.detail


@pytest.mark.parametrize(
    ("layer", "name", "value"),
    [
        (nn.Linear(2, 3), "out_features", 4),
        (nn.Conv2d(2, 4, 3, groups=2), "in_channels", 1),
        (nn.Conv2d(2, 4, 3), "kernel_size", (5, 5)),
        (nn.ConvTranspose2d(2, 4, 3), "in_channels", 4),
        (nn.BatchNorm2d(4), "num_features", 8),
        (nn.GroupNorm(2, 4), "num_channels", 8),
        (nn.LayerNorm(4), "normalized_shape", (8,)),
        (nn.Embedding(4, 2), "embedding_dim", 3),
    ],
)
def test_every_attribute_that_describes_weights(layer, name, value):
    model = nn.Sequential(layer)
    x = torch.zeros(1, 1)
    assert "attribute" not in [f.check for f in audit(model, x).findings]
    setattr(layer, name, value)
    assert [f.place for f in audit(model, x).findings if f.check == "attribute"] == ["0"]


def everything(model):
    return (
        [(n, m.training, sorted(m.__dict__)) for n, m in model.named_modules()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        {n: (id(b), b.tolist()) for n, b in model.named_buffers()},
        {n: (id(p), p.tolist(), p.requires_grad) for n, p in model.named_parameters()},
        {n: (id(p.grad), p.grad.tolist()) for n, p in model.named_parameters() if p.requires_grad},
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
    )


class Restless(Own):
    """Draws random numbers, replaces a buffer and counts, also in evaluation."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.mean = self.mean + x.mean((0, 2, 3))
        self.count += 1
        return super().forward(x + torch.rand_like(x))


@pytest.mark.parametrize("break_it", [False, True])
@pytest.mark.parametrize("mode", [True, False])
def test_the_network_is_left_as_it_was(mode, break_it):
    torch.manual_seed(0)
    model = Restless().train(mode)
    model.block.train(not mode)
    freeze(model, "conv")
    x = torch.rand(4, 3, 8, 8)
    model(x).sum().backward()
    if break_it:
        model.fc.in_features = 7
        model.fc.weight = nn.Parameter(torch.zeros(5, 7))
        model.fc.weight.grad = torch.ones(5, 7)
    before = everything(model)
    assert audit(model, x).ok is not break_it
    assert everything(model) == before
    unfreeze(model)
    assert model.conv.training is mode


def test_a_batch_of_one_in_training_is_fine():
    for model in (built("resnet18"), timm.create_model("mobilenetv3_small_050")):
        assert audit(model.train(), torch.zeros(1, 3, 32, 32)).ok


def test_attention_is_called_although_its_layers_are_not():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 2)
    for mode in (True, False):
        assert audit(model.train(mode), torch.zeros(1, 4, 8)).ok


def test_compiled_networks_are_looked_into():
    compiled = torch.compile(Own(), backend="eager")
    compiled._orig_mod.add_module("extra", nn.Linear(2, 2))
    assert [f.place for f in audit(compiled, torch.zeros(1, 3, 8, 8)).findings] == ["extra"]


def test_several_inputs_and_outputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.rnn = nn.Linear(2, 3), nn.LSTM(3, 4)

        def forward(self, a, b):
            return self.rnn(self.one(a + b))

    found = audit(Two(), (torch.zeros(5, 2), torch.zeros(5, 2)))
    assert found.ok
    assert [s.shape for s in found.stages][1:] == [(5, 3), "(5, 4) (1, 4) (1, 4)"]


def test_stages_in_the_order_of_forward():
    found = audit(built("resnet18"), images())
    assert [s.path for s in found.stages][:6] == [
        "input", "conv1", "bn1", "relu", "maxpool", "layer1.0"
    ]  # fmt: skip
    shapes = {s.path: s.shape for s in found.stages}
    assert shapes["layer4"] == (1, 512, 2, 2)
    assert shapes["fc"] == (1, 1000)


def test_counts_of_a_half_frozen_network():
    model = freeze(built("resnet18"), "conv1", "bn1", "layer1", "layer2")
    found = audit(model, images())
    assert (found.frozen, found.trainable) == (683_072, 11_006_440)
    assert found.layers["Conv2d"] == (10, 20)
    assert frozen_names(model) == ["conv1", "bn1", "layer1", "layer2"]


def test_the_whole_operation_ends_clean():
    donor = built("mobilenet_v3_large")
    model = built("mobilenet_v3_large")
    freeze(model, "features")
    replace_stem(replace_head(model, 5), in_channels=1)
    optimizer = torch.optim.AdamW(model.parameters())
    assert audit(model, images(channels=1), optimizer, donors=[donor]).ok


def test_prints_as_a_table():
    model = built("resnet18")
    model.conv1.in_channels = 1
    lines = str(audit(model, images())).splitlines()
    assert lines[0] == "ResNet: 1 finding"
    assert lines[1].split(maxsplit=2)[:2] == ["attribute", "conv1"]
    assert "parameters: 11,689,512 trainable, 0 frozen" in lines
    columns = [line.index("(1,") for line in lines if "(1," in line]
    assert len(set(columns)) == 1
    assert str(audit(built("resnet18"), images())).startswith("ResNet: no findings\n")


def test_html_is_one_balanced_table():
    class Tags(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.seen = [], []

        def handle_starttag(self, tag, attrs):
            self.open.append(tag)
            self.seen.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    class Loud(Own):
        def forward(self, x):
            raise ValueError("<b>bold & wrong")

    model = Loud()
    parser = Tags()
    html = audit(model, torch.zeros(1, 3, 8, 8))._repr_html_()
    parser.feed(html)
    assert parser.open == []
    assert "&lt;b&gt;bold &amp; wrong" in html
    assert parser.seen.count("table") == 1
    assert set(parser.seen) == {"table", "tr", "th", "td"}
