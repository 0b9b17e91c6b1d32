"""The book's own networks: their sizes, what they borrow, and what they refuse."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, vgg16_bn

from tlbook.audit import audit
from tlbook.inspection import summary
from tlbook.models import HalfFrozenResNet, HybridNet, MLPHead, PlainHybridNet, SlimVGG


def count(module, *, trainable=None):
    return sum(
        p.numel() for p in module.parameters() if trainable is None or p.requires_grad == trainable
    )


def stages(model, size):
    table = summary(model, size, depth=1)
    return [tuple(row.output_size[1:]) for row in table.summary_list if row.depth == 1]


@pytest.mark.parametrize("build", [HybridNet, PlainHybridNet])
def test_the_hybrid_has_the_stated_size_and_stages(build):
    model = build()
    assert count(model) == 2_325_002
    shapes = stages(model, (2, 1, 32, 32))
    assert shapes[:2] == [(64, 32, 32), (128, 16, 16)] and shapes[-1] == (10,)
    assert (256, 8, 8) in shapes
    assert summary(model, (1, 1, 32, 32)).total_output_bytes > 0


def test_the_plain_twin_computes_the_same():
    hybrid, plain = HybridNet(3, 7), PlainHybridNet(3, 7)
    images = torch.rand(4, 3, 32, 32)
    hybrid.train()(images)  # moves the statistics, which must come over too
    plain.copy_weights(hybrid)
    for mode in (True, False):
        found = plain.train(mode)(images)
        torch.testing.assert_close(found, hybrid.train(mode)(images), atol=1e-5, rtol=1e-4)


def test_the_hybrid_shares_nothing_with_its_donors():
    vgg, resnet = vgg16_bn(weights=None), resnet18(weights=None)
    hybrid = HybridNet(vgg=vgg, resnet=resnet)
    assert hybrid.resnet[0].conv1.weight.equal(resnet.layer3[0].conv1.weight)
    assert hybrid.vgg[0].weight.equal(vgg.features[7].weight)
    assert audit(hybrid, torch.zeros(2, 1, 32, 32), donors=(vgg, resnet)).ok
    before = copy.deepcopy(resnet.state_dict())
    optimizer = torch.optim.SGD(hybrid.parameters(), lr=0.1)
    hybrid(torch.rand(4, 1, 32, 32)).square().sum().backward()
    optimizer.step()
    assert all(value.equal(before[key]) for key, value in resnet.state_dict().items())


@pytest.mark.parametrize("size", [4, 28, 32, 33])
def test_the_hybrid_takes_other_sizes(size):
    assert HybridNet(image_size=size)(torch.rand(2, 1, size, size)).shape == (2, 10)


def test_the_slim_net_has_the_stated_size_and_stages():
    model = SlimVGG()
    assert count(model) == 925_482
    shapes = {tuple(r.output_size[1:]) for r in summary(model, (2, 1, 28, 28)).summary_list}
    assert {(32, 14, 14), (64, 7, 7), (256,), (10,)} <= shapes
    assert SlimVGG(3, 5, image_size=33)(torch.rand(2, 3, 33, 33)).shape == (2, 5)


def test_the_slim_net_refuses_another_size_than_its_own():
    with pytest.raises(ValueError, match=r"32×32 pixels.*28×28.*SlimVGG\(image_size=32\)"):
        SlimVGG()(torch.rand(2, 1, 32, 32))


def test_the_half_frozen_network():
    donor = resnet18(weights=None)
    donor(torch.rand(4, 3, 64, 64))  # moves the statistics
    model = HalfFrozenResNet(donor=donor)
    assert count(model) == 11_181_642
    assert (count(model, trainable=True), count(model, trainable=False)) == (10_498_570, 683_072)
    assert list(model.state_dict()) == list(donor.state_dict())
    assert audit(model, torch.zeros(2, 3, 64, 64), donors=(donor,)).ok
    before = copy.deepcopy(model.state_dict())
    model.train()(torch.rand(4, 3, 64, 64)).sum().backward()
    for key, value in model.state_dict().items():
        if key.startswith(HalfFrozenResNet.FROZEN):
            assert value.equal(before[key]) and value.equal(donor.state_dict()[key])


def test_the_half_frozen_network_with_one_channel():
    model = HalfFrozenResNet(1, 3, image_size=64).eval()
    grey = torch.rand(2, 1, 64, 64)
    assert model(grey).shape == (2, 3)
    assert count(model.conv1, trainable=False) == 64 * 49


@pytest.mark.parametrize(
    ("build", "size", "least"),
    [(HybridNet, 3, 4), (PlainHybridNet, 2, 4), (SlimVGG, 3, 4), (HalfFrozenResNet, 16, 17)],
)
def test_a_size_that_cannot_be_served_is_refused(build, size, least):
    with pytest.raises(ValueError, match=f"image_size is {size}.*at least {least}"):
        build(image_size=size)


def test_the_head_of_two_layers():
    head = MLPHead(20, 3, hidden=8)
    assert head(torch.rand(4, 20)).shape == (4, 3)
    assert count(head) == 2 * 20 + 20 * 8 + 8 + 2 * 8 + 8 * 3 + 3
    assert isinstance(head[4], nn.ELU)
