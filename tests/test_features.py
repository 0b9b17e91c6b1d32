import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision import models
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from tlbook import HalfFrozenResNet, class_counts, fit, freeze, image_folder, load_pretrained
from tlbook import features as under_test
from tlbook.features import (
    extract_features,
    feature_extractor,
    linear_probe,
    split_at,
    to_linear,
)
from tlbook.fingerprints import data_digest
from tlbook.freezing import is_pinned
from tlbook.grey import GreyImages

FLOAT = {"precision": "float32"}

CUTS = {
    "alexnet": ("features.4", 80),
    "vgg11_bn": ("features.7", 32),
    "squeezenet1_1": ("features.5", 64),
    "densenet121": ("features.denseblock1", 32),
    "mobilenet_v2": ("features.7.conv.0", 32),
    "mobilenet_v3_small": ("features.5", 32),
    "mnasnet0_5": ("layers.9", 32),
    "shufflenet_v2_x0_5": ("stage3", 32),
    "efficientnet_b0": ("features.4", 32),
    "regnet_y_400mf": ("trunk_output.block2", 32),
    "convnext_tiny": ("features.4", 32),
    "swin_t": ("features.3", 32),
    "vit_b_32": ("encoder.layers.encoder_layer_5", 224),
    "resnet18": ("flatten", 32),
}


def network(name, **settings):
    torch.manual_seed(0)
    net = models.get_model(name, weights=None, **settings)
    last = [layer for layer in net.modules() if isinstance(layer, nn.Linear)][-1:]
    for layer in last:
        nn.init.normal_(layer.weight)  # a ViT's is zero
    return net


def images(count=2, side=32, channels=3):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1))


def tiny(dropout=0.0):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
    tail = nn.Sequential(nn.Dropout(dropout), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(body, tail, nn.Linear(4, 2)).eval()


@pytest.mark.parametrize("name", CUTS)
def test_the_parts_make_the_whole(name):
    node, side = CUTS[name]
    net, x = network(name).eval(), images(side=side)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    prefix, suffix = split_at(net, node)
    with torch.no_grad():
        middle, whole = prefix(x), net(x)
        kept = middle.clone()
        assert torch.equal(suffix(middle), whole) and whole.std() > 0
        assert torch.equal(middle, kept), "the suffix wrote into its input"
        assert torch.equal(feature_extractor(net, node)(x), middle)
    assert prefix.state_dict().keys() | suffix.state_dict().keys() == before.keys()
    assert all(value.equal(net.state_dict()[key]) for key, value in before.items())
    own = dict(net.named_parameters())
    for part in (prefix, suffix):
        assert not part.training
        assert all(own[key] is parameter for key, parameter in part.named_parameters())


@pytest.mark.parametrize(
    ("net", "node", "side"),
    [
        (lambda: HalfFrozenResNet(num_classes=3), "layer2", 64),
        (lambda: load_pretrained("efficientnet_lite0").model, "blocks.3", 64),
        (lambda: network("googlenet", init_weights=False, aux_logits=False), "inception4e", 64),
    ],
    ids=["half-frozen", "lite0", "googlenet"],
)
def test_other_networks_are_cut_too(net, node, side):
    net, x = net().eval(), images(side=side)
    prefix, suffix = split_at(net, node)
    with torch.no_grad():
        assert torch.equal(suffix(prefix(x)), net(x))


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v3_small", "densenet121"])
def test_both_parts_train_as_the_whole_does(name):
    """Dropout and stochastic depth draw alike, BatchNorm moves, gradients are the same."""
    settings = {"drop_rate": 0.2} if name == "densenet121" else {}
    whole = network(name, **settings).train()
    prefix, suffix = split_at(copy.deepcopy(whole).eval(), CUTS[name][0])
    prefix.train(), suffix.train()
    x = images(count=8)
    torch.manual_seed(3)
    expected = whole(x)
    torch.manual_seed(3)
    found = suffix(prefix(x))
    assert torch.equal(found, expected)
    expected.sum().backward()
    found.sum().backward()
    both = dict(prefix.named_parameters()) | dict(suffix.named_parameters())
    for key, parameter in whole.named_parameters():
        assert torch.equal(parameter.grad, both[key].grad), key
    state = prefix.state_dict() | suffix.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in whole.state_dict().items())
    assert not torch.equal(found, suffix.eval()(prefix.eval()(x)))


def test_the_mode_counts_whoever_switches_it():
    """`evaluating` and freezing set `training` without calling `train`."""

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.second(F.dropout(self.first(x), 0.5, self.training))

    net = Functional().train()
    _, suffix = split_at(net, "first")
    x = torch.ones(64, 3)
    assert not torch.equal(suffix(x), suffix(x))
    before = [module.training for module in net.modules()]
    extract_features(suffix, TensorDataset(x, x), **FLOAT)
    assert [module.training for module in net.modules()] == before
    assert not torch.equal(suffix(x), suffix(x)), "dropout has stopped"
    freeze(suffix)
    assert torch.equal(suffix(x), suffix(x))


def test_what_is_frozen_stays_frozen():
    net = HalfFrozenResNet(num_classes=3).train()
    prefix, suffix = split_at(net, "layer2")
    assert not [p for p in prefix.parameters() if p.requires_grad]
    assert all(p.requires_grad for p in suffix.parameters())
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = torch.optim.SGD(suffix.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        prefix.train(), suffix.train()
        suffix(prefix(images(4, 64))).sum().backward()
        optimizer.step()
    moved = {key for key, value in net.state_dict().items() if not value.equal(before[key])}
    assert moved == {key for key in before if key.startswith(("layer3", "layer4", "fc"))}
    assert (
        is_pinned(prefix.bn1)
        and not prefix.bn1.training
        and suffix.layer3.get_submodule("0.bn1").training
    )


def test_buffers_constants_modes_and_copies():
    class Scales(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(2, 2)
            self.register_buffer("scale", torch.ones(1), persistent=False)

        def forward(self, x):
            return self.inner(x) * self.scale.view(-1) + torch.tensor([1.0, 2.0])

    net = nn.Sequential(Scales(), nn.BatchNorm1d(2), nn.Linear(2, 2))
    net[1].eval()
    prefix, suffix = split_at(net, "0")
    assert [m.training for m in net] == [True, False, True]
    assert not vars(net).keys() - vars(nn.Sequential()).keys(), "tracing left something behind"
    assert list(prefix.state_dict()) == ["0.inner.weight", "0.inner.bias"]
    twin = copy.deepcopy(suffix)
    twin.load_state_dict({key: value + 1 for key, value in suffix.state_dict().items()})
    x = torch.rand(3, 2)
    net[0].scale.fill_(3)
    assert torch.equal(suffix(prefix(x)), net(x)) and not torch.equal(twin(x), suffix(x))


@pytest.mark.parametrize(
    ("name", "node", "words"),
    [
        (
            "resnet18",
            "layer1.0.bn1",
            ("cross it, 'maxpool'.", "clean cuts: 'maxpool', 'layer1.0'"),
        ),
        ("resnet18", "layer9", ("no node 'layer9'", "'layer4'")),
        ("googlenet", "inception4c", ("in training mode", "cross it, 'aux1'.", "'inception4a'")),
        ("vit_b_32", "conv_proj", ("cross it, 'x'", "clean cuts: 'encoder.dropout'")),
        ("googlenet", "aux1", ("no node 'aux1' in evaluation mode",)),
    ],
)
def test_cuts_that_are_not_clean_are_refused(name, node, words):
    net = network(name, **({"init_weights": False} if name == "googlenet" else {}))
    with pytest.raises(ValueError) as refusal:
        split_at(net, node)
    for word in words:
        assert word in str(refusal.value)
    if "clean cuts" in str(refusal.value):
        for suggested in str(refusal.value).rpartition(": ")[2].split(", "):
            split_at(net, suggested.strip("'"))


def test_an_extractor_may_look_where_no_cut_is_clean():
    net = network("resnet18").eval()
    found = {}
    net.layer1[0].bn1.register_forward_hook(lambda *parts: found.update(x=parts[2].clone()))
    with torch.no_grad():
        net(images())
        assert torch.equal(feature_extractor(net, "layer1.0.bn1")(images()), found["x"])


def test_a_network_with_decisions_is_refused():
    class Decides(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match="Decides cannot be traced"):
        split_at(Decides(), "neg")


# --- extract_features


class Counted(nn.Module):
    """Counts the examples that pass, in evaluation mode and without gradients."""

    def __init__(self, net):
        super().__init__()
        self.net, self.seen, self.sick = net, 0, None

    def forward(self, x):
        assert not self.training and torch.is_inference_mode_enabled()
        self.seen += len(x)
        if self.sick is not None and self.seen > self.sick:
            raise KeyboardInterrupt
        return self.net(x)


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("ants", "bees")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            rng = np.random.default_rng(10 * number + i)
            pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


STEPS = v2.Compose([v2.Resize(8), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
RANDOM = v2.Compose([v2.RandomCrop(8), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def test_features_are_those_of_the_network(folder):
    net, data = tiny(dropout=0.5).train(), image_folder(folder, transform=STEPS)
    state = torch.get_rng_state()
    found = extract_features(net, data, node="1", batch_size=3, **FLOAT)
    assert net[1][0].training and torch.equal(torch.get_rng_state(), state)
    x = torch.stack([image for image, _ in data])
    with torch.no_grad():
        expected = net.eval()[1](net[0](x))
    assert torch.allclose(found.tensors[0], expected, atol=1e-6)
    assert torch.equal(found.targets, data.targets) and found.examples.tolist() == list(range(8))
    assert class_counts(found) == {"ants": 4, "bees": 4}
    head = nn.Linear(4, 2)
    fit(head, found, found, epochs=2, progress=False, **FLOAT)  # no inference tensors


def test_the_second_call_computes_one_example_only(folder, tmp_path):
    net, data = Counted(tiny()), image_folder(folder, transform=STEPS)
    first = extract_features(net, data, cache=tmp_path / "kept", **FLOAT)
    assert net.seen == 8
    (kept,) = (tmp_path / "kept").iterdir()
    assert sorted(file.name for file in kept.iterdir()) == ["features.npy", "targets.npy"]
    moved = folder.rename(folder.with_name("elsewhere"))
    again = extract_features(
        net, image_folder(moved, transform=STEPS), cache=tmp_path / "kept", batch_size=2, **FLOAT
    )
    assert net.seen == 9
    assert all(torch.equal(a, b) for a, b in zip(first.tensors, again.tensors, strict=True))
    again.tensors[0].zero_()  # copy on write
    third = extract_features(
        net, ImageFolder(moved, transform=STEPS), cache=tmp_path / "kept", **FLOAT
    )
    assert torch.equal(first.tensors[0], third.tensors[0])


def change_a_weight(net, data):
    with torch.no_grad():
        net.net[0][0].weight[0, 0, 0, 0] += 1e-3


def change_statistics(net, data):
    net.net[0][1].running_mean += 1e-3


def change_the_structure(net, data):
    net.net[0][2] = nn.Sigmoid()


def change_an_image(net, data):
    path = Path(data.samples[-1][0])
    before = path.stat()
    pixels = np.array(Image.open(path))
    pixels[0, 0] ^= 255
    Image.fromarray(pixels).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def change_a_label(net, data):
    path, label = data.samples[-1]
    data.samples[-1] = path, 1 - label


def change_the_transform(net, data):
    data.transform = v2.Compose([v2.Resize(9), *STEPS.transforms[1:]])


def change_hidden_code(net, data):
    forward = net.net.forward
    net.net.forward = lambda x: 1.1 * forward(x)


CHANGES = [
    change_a_weight,
    change_statistics,
    change_the_structure,
    change_an_image,
    change_a_label,
    change_the_transform,
]


@pytest.mark.parametrize("change", [*CHANGES, change_hidden_code])
def test_nothing_stale_is_ever_returned(change, folder, tmp_path, recwarn):
    torch.manual_seed(0)
    net = Counted(nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())))
    data = image_folder(folder, transform=STEPS)
    extract_features(net.eval(), data, cache=tmp_path / "kept", **FLOAT)
    change(net, data)
    found = extract_features(net, data, cache=tmp_path / "kept", **FLOAT)
    fresh = extract_features(net, data, **FLOAT)
    assert all(torch.equal(a, b) for a, b in zip(found.tensors, fresh.tensors, strict=True))
    warned = any("does not compute" in str(warning.message) for warning in recwarn)
    assert warned == (change is change_hidden_code)


class Squares(Dataset):
    """A kind of dataset that nobody knows."""

    def __init__(self, scale):
        self.scale = scale

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return torch.full((3, 5, 5), float(index)) * self.scale, index % 2


def test_data_of_every_kind(folder, tmp_path):
    x, y = images(6), torch.arange(6) % 2
    lambdas = v2.Compose([*STEPS.transforms, v2.Lambda(lambda image: image * 1.5)])
    other = v2.Compose([*STEPS.transforms, v2.Lambda(lambda image: image * 2.5)])
    kinds = [
        TensorDataset(x, y),
        TensorDataset(x, 1 - y),
        Subset(TensorDataset(x, y), [4, 1]),
        Subset(TensorDataset(x, y), [1, 4]),
        Squares(1.0),
        Squares(2.0),
        image_folder(folder, transform=lambdas),
        image_folder(folder, transform=other),
    ]
    net = Counted(tiny())
    for expected in (len, lambda kind: 1):
        for kind in kinds:
            net.seen = 0
            found = extract_features(net, kind, cache=tmp_path / "kept", **FLOAT)
            assert net.seen == expected(kind)
            fresh = extract_features(net, kind, **FLOAT)
            assert all(map(torch.equal, found.tensors, fresh.tensors))


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(under_test, "CHUNK", 10)
    net, data = Counted(tiny()), TensorDataset(images(35, 8), torch.arange(35))
    net.sick = 25
    with pytest.raises(KeyboardInterrupt):
        extract_features(net, data, cache=tmp_path, batch_size=5, **FLOAT)
    net.sick, net.seen = None, 0
    found = extract_features(net, data, cache=tmp_path, batch_size=5, **FLOAT)
    assert net.seen == 1 + 15
    assert torch.equal(found.tensors[0], extract_features(net, data, **FLOAT).tensors[0])


@pytest.mark.parametrize("damage", ["chunk", "features.npy", "targets.npy"])
def test_a_truncated_file_is_named_and_computed_again(damage, tmp_path, monkeypatch):
    monkeypatch.setattr(under_test, "CHUNK", 10)
    net, data = Counted(tiny()), TensorDataset(images(20, 8), torch.arange(20))
    net.sick = 10 if damage == "chunk" else None
    try:
        extract_features(net, data, cache=tmp_path, **FLOAT)
    except KeyboardInterrupt:
        net.sick = None
    (file,) = tmp_path.glob("*/*.safetensors" if damage == "chunk" else f"*/{damage}")
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.warns(UserWarning, match="computed again"):
        found = extract_features(net, data, cache=tmp_path, **FLOAT)
    fresh = extract_features(net, data, **FLOAT)
    assert all(map(torch.equal, found.tensors, fresh.tensors))


SCRIPT = """
import sys, time, torch
from torch import nn
from torch.utils.data import TensorDataset
from tlbook import features

features.CHUNK = 4
seen = []

class Slow(nn.Module):
    def forward(self, x):
        time.sleep(float(sys.argv[2]))
        seen.append(len(x))
        return x.flatten(1) * 2

data = TensorDataset(torch.arange(40.0).view(40, 1, 1, 1), torch.arange(40))
found = features.extract_features(Slow(), data, cache=sys.argv[1], precision="float32")
assert torch.equal(found.tensors[0].flatten(), torch.arange(40.0) * 2)
assert torch.equal(found.targets, torch.arange(40))
print(sum(seen))
"""


def start(cache, pause):
    command = [sys.executable, "-c", SCRIPT, str(cache), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_killed_process_loses_one_chunk_and_two_at_once_do_no_harm(tmp_path, monkeypatch, capsys):
    victim, *pair = start(tmp_path / "a", 0.3), start(tmp_path / "b", 0.2), start(tmp_path / "b", 0)
    while len(list(tmp_path.glob("a/*/*.safetensors"))) < 3:
        assert victim.poll() is None
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert not list(tmp_path.glob("a/*/features.npy"))
    monkeypatch.setattr(under_test, "CHUNK", 4)
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "a"), "0"])
    exec(SCRIPT, {"__name__": "__main__"})
    assert int(capsys.readouterr().out) <= 1 + 40 - 12
    for process in pair:
        assert 0 < int(process.communicate()[0]) <= 41
    assert len(list(tmp_path.glob("*/*/features.npy"))) == 2
    assert not list(tmp_path.glob("*/*/*.safetensors"))


def test_views_are_fixed_by_their_seed(folder, tmp_path):
    net, data = tiny(), image_folder(folder, transform=RANDOM)
    kept = extract_features(net, data, views=3, seed=1, cache=tmp_path, **FLOAT)
    again = extract_features(net, data, views=3, seed=1, batch_size=5, num_workers=1, **FLOAT)
    other = extract_features(net, data, views=3, seed=2, cache=tmp_path, **FLOAT)
    first, second, third = kept.tensors[0].split(8)
    assert torch.allclose(kept.tensors[0], again.tensors[0], atol=1e-6)
    assert not torch.allclose(first, second, atol=1e-3) and not torch.equal(second, third)
    assert not torch.allclose(kept.tensors[0], other.tensors[0], atol=1e-3)
    assert kept.targets.tolist() == data.targets.tolist() * 3
    assert kept.examples.tolist() == list(range(8)) * 3


def test_random_data_in_one_view_and_fixed_data_in_several_are_refused(folder):
    with pytest.raises(ValueError, match="draws at random"):
        extract_features(tiny(), image_folder(folder, transform=RANDOM))
    with pytest.raises(ValueError, match="would be alike"):
        extract_features(tiny(), image_folder(folder, transform=STEPS), views=2)
    with pytest.raises(ValueError, match="0 examples"):
        extract_features(tiny(), TensorDataset(images(0), torch.zeros(0)))
    pairs = nn.GRU(3, 2)
    with pytest.raises(ValueError, match="gives a tuple"):
        extract_features(pairs, TensorDataset(torch.zeros(2, 4, 3), torch.zeros(2)), **FLOAT)


def test_a_suffix_learns_from_maps_on_disk(tmp_path):
    net = HalfFrozenResNet(num_classes=2, image_size=32)
    x = torch.cat([images(16), images(16) / 4])
    prefix, suffix = split_at(net, "layer2")
    data = TensorDataset(x, torch.arange(2).repeat_interleave(16))
    maps = extract_features(prefix, data, cache=tmp_path, **FLOAT)
    assert "features.npy" in Path("/proc/self/maps").read_text(), "not mapped"
    history = fit(suffix, maps, epochs=6, batch_size=16, progress=False, **FLOAT)
    assert history.epochs[-1].train_accuracy > 0.9
    net.eval()
    with torch.no_grad():
        assert torch.allclose(net(x), suffix(maps.tensors[0]), atol=1e-4)


# --- linear_probe


def points(classes, count=90, noise=1.0):
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(classes).repeat(count // classes)
    centres = 3 * torch.randn(classes, 8, generator=generator)
    return centres[y] + noise * torch.randn(len(y), 8, generator=generator), y


@pytest.mark.parametrize("classes", [2, 3])
def test_a_probe_becomes_a_head(classes):
    x, y = points(classes, noise=3.0)
    probe = linear_probe(5 + 10 * x, y)
    head = to_linear(probe)
    found = head(5 + 10 * x).softmax(1).detach().numpy()
    assert np.allclose(found, probe.predict_proba(5 + 10 * x), atol=1e-4)
    assert (found.argmax(1) == y.numpy()).mean() > 0.8
    with pytest.raises(ValueError, match=r"classes \[1, 2"):
        to_linear(linear_probe(x, y + 1))


def test_the_penalty_follows_the_data():
    clear, y = points(2)
    noise = torch.randn(90, 8, generator=torch.Generator().manual_seed(1))
    strengths = [linear_probe(x, y)["logisticregression"].C for x in (clear, noise)]
    assert strengths[0] > strengths[1]


def test_views_of_one_example_are_in_one_fold():
    """Labels are noise: whoever tests on views of what it learned from sees none of it."""
    x = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    y = torch.arange(40) % 2
    views = under_test.FeatureDataset(x.repeat(4, 1), y.repeat(4), TensorDataset(x, y))
    honest = linear_probe(views)["logisticregression"].C
    leaking = linear_probe(*views.tensors)["logisticregression"].C
    assert honest < leaking
    order = torch.randperm(160, generator=torch.Generator().manual_seed(0)).tolist()
    assert leaking > linear_probe(Subset(views, order))["logisticregression"].C


def test_a_probe_refuses_what_it_cannot_fit(folder):
    x, y = points(2, count=10)
    y[1:] = 0
    y[0] = 1
    with pytest.raises(ValueError, match="class 1 has 1:"):
        linear_probe(x, y)
    with pytest.raises(ValueError, match="not in memory"):
        linear_probe(image_folder(folder))


def test_a_transform_that_holds_a_tensor_is_told_by_its_values():
    images, labels = torch.zeros(2, 8, 8, dtype=torch.uint8), torch.tensor([0, 1])
    transforms = [v2.RandomResizedCrop(4, ratio=(least, 1.0)) for least in (0.5, 0.5, 0.75)]
    assert isinstance(transforms[0]._log_ratio, torch.Tensor)
    about = {"classes": ["a", "b"], "source": "me"}
    sets = [GreyImages(images, labels, transform=v2.Compose([t, v2.ToImage()]), **about)
            for t in transforms]  # fmt: skip
    same, again, other = (data_digest(data, data) for data in sets)
    assert same == again != other  # what they show is always the same, all black
