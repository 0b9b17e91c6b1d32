"""What an operation changed is told completely, in the right place, and without a trace."""

import copy
from html.parser import HTMLParser

import pytest
import torch
from torch import nn
from torchvision import models

from tlbook import compare_models
from tlbook.freezing import freeze
from tlbook.surgery import delete, insert_after, replace_head, replace_stem, truncate_after

SMALL = (1, 3, 64, 64)


def compared(model, operation, **options):
    before = copy.deepcopy(model)
    operation(model)
    return compare_models(before, model, SMALL, **options)


def marks(comparison):
    return [
        (row.mark, row.before and row.before.path, row.after and row.after.path)
        for row in comparison.changes
    ]


def test_the_same_network_has_no_changes():
    comparison = compared(models.resnet18(), lambda model: None)
    assert comparison.changes == ()
    assert [row.note for row in comparison.rows] == [""] * 10
    assert [row.after.path for row in comparison.rows[4:8]] == [f"layer{n}" for n in (1, 2, 3, 4)]


def test_a_new_head_and_stem():
    def operate(model):
        replace_head(replace_stem(model, in_channels=1, small_input=True), 5)

    comparison = compared(models.resnet18(), operate, after_size=(1, 1, 32, 32))
    assert marks(comparison) == [("changed", p, p) for p in ("conv1", "maxpool", "fc")]
    assert (comparison.before.output, comparison.after.output) == ("(1, 1000)", "(1, 5)")
    assert comparison.after.parameters == 11_689_512 - 9_408 + 576 - 513_000 + 2_565
    text = str(comparison)
    assert "+ fc  Linear(in_features=512, out_features=5, bias=True)  2,565 parameters" in text
    assert "layer4  Sequential, 12 layers  8,393,728 parameters  (1, 512, 4, 4)" in text


def test_totals_are_those_of_torchinfo():
    comparison = compared(models.alexnet(), lambda model: replace_head(model, 3))
    assert comparison.before.parameters == 61_100_840
    assert comparison.before.mult_adds - comparison.after.mult_adds == 997 * 4097


def test_a_part_that_goes_is_one_row():
    comparison = compared(models.alexnet(), lambda m: setattr(m, "classifier", nn.Identity()))
    assert marks(comparison) == [("changed", "classifier", "classifier")]
    (row,) = comparison.changes
    assert row.before.text == "Sequential, 7 layers" and row.before.parameters == 58_631_144


def test_a_forward_that_fails_is_told():
    def operate(model):
        del model.classifier

    comparison = compared(models.alexnet(), operate)
    assert marks(comparison) == [("removed", "classifier", None)]
    assert comparison.after.output is comparison.after.mult_adds is None
    words = "forward fails after: AttributeError: 'AlexNet' object has no attribute 'classifier'"
    assert words in str(comparison) and words.replace("'", "&#x27;") in comparison._repr_html_()


def test_layers_that_move_up_are_known_by_what_they_are():
    comparison = compared(models.alexnet(), lambda model: delete(model, "classifier.3"))
    assert marks(comparison) == [("removed", "classifier.3", None)]
    moved = comparison.rows[-1]
    assert moved.note == "renumbered"
    assert (moved.before.path, moved.after.path) == (
        "classifier.4 … classifier.6",
        "classifier.3 … classifier.5",
    )


def test_blocks_that_print_alike_are_told_apart_by_their_weights():
    net = nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))
    before = copy.deepcopy(net)
    delete(net, "2")
    comparison = compare_models(before, net, (1, 4))
    assert marks(comparison) == [("removed", "2", None)]


def test_a_block_of_a_convnext_goes_whole():
    net = models.convnext.ConvNeXt([models.convnext.CNBlockConfig(16, None, 4)])
    comparison = compared(net, lambda model: delete(model, "features.1.2"))
    assert marks(comparison) == [("removed", "features.1.2", None)]


def test_insertions_and_truncations():
    insert = compared(models.resnet18(), lambda m: insert_after(m, "relu", nn.Dropout()))
    assert marks(insert) == [("added", None, "relu.1")]
    cut = compared(models.resnet18(), lambda m: truncate_after(m, "layer3"))
    assert marks(cut) == [("changed", p, p) for p in ("layer4", "avgpool", "fc")]
    assert cut.changes[0].before.text == "Sequential, 12 layers"


def test_other_weights_and_freezing_are_noted():
    def fresh(model):
        nn.init.normal_(model.fc.weight)

    rows = {row.after.path: row.note for row in compared(models.resnet18(), fresh).rows}
    assert {path for path, note in rows.items() if note} == {"fc"}
    frozen = compared(models.resnet18(), lambda model: freeze(model, "layer1"))
    assert {row.after.path: row.note for row in frozen.rows}["layer1"] == "now frozen"
    assert frozen.after.trainable == frozen.before.trainable - 147_968


def test_a_layer_that_never_runs_has_no_output():
    comparison = compared(models.resnet18(), lambda m: m.add_module("extra", nn.Linear(9, 3)))
    (row,) = comparison.changes
    assert (row.mark, row.after.path, row.after.shape) == ("added", "extra", "")
    assert comparison.before.mult_adds == comparison.after.mult_adds


def test_parameters_that_belong_to_a_block():
    comparison = compared(
        models.vit_b_32(), lambda m: replace_head(m, 3), after_size=(1, 3, 64, 64)
    )
    assert comparison.rows[0].after.path == "class_token"
    assert marks(comparison) == [("changed", "heads.head", "heads.head")]
    assert "Wrong image height" in str(comparison)  # a ViT takes 224 pixels: said, not raised


@pytest.mark.parametrize("training", [True, False])
def test_the_networks_are_left_as_they_were(training):
    one, other = (models.resnet18().train(training) for _ in range(2))
    saved, state = copy.deepcopy(other.state_dict()), torch.get_rng_state()
    compare_models(one, other, SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training is training for module in other.modules())
    assert all(torch.equal(saved[key], value) for key, value in other.state_dict().items())


def test_networks_on_the_meta_device_and_in_half_precision():
    with torch.device("meta"):
        model = models.resnet18()
    comparison = compared(model, lambda m: replace_head(m, 5))
    assert marks(comparison) == [("changed", "fc", "fc")]
    assert (comparison.after.output, comparison.after.failure) == ("(1, 5)", None)
    half = compared(models.resnet18(), lambda m: m.to(torch.bfloat16))
    assert half.rows[0].note == "other weights"


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.cells = [], []

    def handle_starttag(self, tag, attrs):
        if tag != "br":
            self.open.append(tag)
        self.cells += [dict(attrs).get("style", "")] * (tag == "td")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_balanced_and_marks_changes_in_words_too():
    comparison = compared(models.alexnet(), lambda model: delete(model, "classifier.3"))
    html, tags = comparison._repr_html_(), Tags()
    tags.feed(html)
    assert tags.open == [] and sum("dashed" in style for style in tags.cells) == 1
    assert ">removed</td>" in html and "Dropout(p=0.5, inplace=False)" in html
    assert ">renumbered" in html
