"""Right and typically wrong answers to the exercises of *rules of thumb*."""

import torch
from torch import nn

from tlbook import delete, load_result

RATES = load_result("speed")["measured"]["HybridNet, 32 pixels"]
SIGNS = {"side": "small", "kind": "photo", "number": "some", "time": "hours"}


def bill(part="training", images=60_000, epochs=20, unit=3600):
    rates = RATES[part]["images per second"]
    return {how: images * epochs / rates[how] / unit for how in ("float32", "both")}


def serves(row, situation):
    return all(answer in ("any", *row[key].split()) for key, answer in situation.items())


def serving(rows, situation):
    return [row["start"] for row in rows if serves(row, situation)]


def serving_pieces(rows, situation):
    return [
        row["start"]
        for row in rows
        if all(answer == "any" or answer in row[key] for key, answer in situation.items())
    ]


def serving_equal(rows, situation):
    return [row["start"] for row in rows if all(row[k] == a for k, a in situation.items())]


def serving_without_any(rows, situation):
    return [
        row["start"]
        for row in rows
        if all(answer in row[key].split() for key, answer in situation.items())
    ]


def serving_one_answer(rows, situation):
    return [
        row["start"]
        for row in rows
        if any(answer in ("any", *row[key].split()) for key, answer in situation.items())
    ]


def without_last_stage(network):
    width = network.layer4[0].conv1.in_channels
    delete(network, "layer4")
    network.fc = nn.Linear(width, network.fc.out_features)
    return network


def with_the_old_head(network):
    return delete(network, "layer4")


def with_256_maps(network):
    network.layer4, network.fc = nn.Identity(), nn.Linear(256, network.fc.out_features)
    return network


def with_1000_classes(network):
    width = network.layer4[0].conv1.in_channels
    network.layer4, network.fc = nn.Identity(), nn.Linear(width, 1000)
    return network


def without_two_stages(network):
    width, classes = network.layer3[0].conv1.in_channels, network.fc.out_features
    network.layer3, network.layer4 = nn.Identity(), nn.Identity()
    network.fc = nn.Linear(width, classes)
    return network


def leaves_a_gap(network):
    width = network.layer4[0].conv1.in_channels
    del network.layer4
    network.fc = nn.Linear(width, network.fc.out_features)
    return network


def returns_nothing(network):
    without_last_stage(network)


def drawn_anew(network):
    without_last_stage(network)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()
    return network


def with_a_hidden_layer(network):
    without_last_stage(network)
    width, classes = network.fc.in_features, network.fc.out_features
    network.fc = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, classes))
    return network


RIGHT = {
    "rules_of_thumb_1": SIGNS | {"kind": " Photo"},
    "rules_of_thumb_2": {how: torch.tensor(hours) for how, hours in bill().items()},
    "rules_of_thumb_3": serving,
    "rules_of_thumb_4": without_last_stage,
}

WRONG = {
    "rules_of_thumb_1": [
        SIGNS | {"number": "many"},
        SIGNS | {"kind": "clean"},
        SIGNS | {"side": 32},
        SIGNS | {"time": "minutes"},
        {"side": "small"},
        ["small", "photo", "some", "hours"],
    ],
    "rules_of_thumb_2": [
        bill(unit=60),
        bill(epochs=1),
        bill("forward"),
        {"float32": bill()["both"], "both": bill()["float32"]},
        {"float32": 5.0},
        {"float32": 0, "both": 0},
        {"float32": "5 h", "both": "1 h"},
    ],
    "rules_of_thumb_3": [
        serving_pieces,
        serving_equal,
        serving_without_any,
        serving_one_answer,
        lambda rows, situation: [row for row in rows if serves(row, situation)],
        lambda rows, situation: serving(rows, situation)[::-1],
        lambda rows, situation: len(serving(rows, situation)),
    ],
    "rules_of_thumb_4": [
        with_the_old_head,
        with_256_maps,
        with_1000_classes,
        without_two_stages,
        leaves_a_gap,
        returns_nothing,
        drawn_anew,
        with_a_hidden_layer,
    ],
}
