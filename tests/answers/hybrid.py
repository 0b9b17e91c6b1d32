"""Right and typically wrong answers to the exercises of *A VGG+ResNet hybrid*."""

import copy

from torch import nn

FITTING = [
    "resnet18.layer2",
    "vgg19_bn.features[7:14]",
    "densenet121.features[4:6]",
    "squeezenet1_1.features[3:6]",
]


def move(source, target):
    old, new = source.state_dict(), target.state_dict()
    if [value.shape for value in old.values()] != [value.shape for value in new.values()]:
        raise ValueError("the networks differ")
    target.load_state_dict(dict(zip(new, old.values(), strict=True)))


def move_without_looking(source, target):
    new = target.state_dict()
    values = source.state_dict().values()
    target.load_state_dict(dict(zip(new, values, strict=False)), strict=False)


def move_one_by_one(source, target):
    new = target.state_dict()
    if len(new) != len(source.state_dict()):
        raise ValueError("another number of entries")
    for place, value in zip(new.values(), source.state_dict().values(), strict=True):
        if place.shape != value.shape:
            raise ValueError("another shape")
        place.copy_(value)


def move_by_numbers_of_values(source, target):
    old, new = list(source.state_dict().values()), list(target.state_dict().values())
    if [value.numel() for value in old] != [value.numel() for value in new]:
        raise ValueError("the networks differ")
    for place, value in zip(new, old, strict=True):
        place.copy_(value)


def move_parameters_only(source, target):
    pairs = list(zip(target.parameters(), source.parameters(), strict=True))
    if any(old.shape != new.shape for old, new in pairs):
        raise ValueError("another shape")
    for place, value in pairs:
        place.data.copy_(value.data)


def move_by_sharing(source, target):
    old, new = source.state_dict(), target.state_dict()
    if [value.shape for value in old.values()] != [value.shape for value in new.values()]:
        raise ValueError("the networks differ")
    target.load_state_dict(dict(zip(new, old.values(), strict=True)), assign=True)


def move_back(source, target):
    move(target, source)


def stem():
    return [nn.Conv2d(1, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]


def head(features=256):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, 10)]


def dense_hybrid(densenet, resnet):
    parts = copy.deepcopy(densenet.features[4:6]), copy.deepcopy(resnet.layer3)
    return nn.Sequential(*stem(), *parts, *head())


class DenseHybrid(nn.Module):
    def __init__(self, densenet, resnet):
        super().__init__()
        self.fc = nn.Linear(256, 10)
        self.stem = nn.Sequential(*stem())
        self.late, self.early = copy.deepcopy((resnet.layer3, densenet.features[4:6]))

    def forward(self, x):
        return self.fc(self.late(self.early(self.stem(x))).mean((2, 3)))


def dense_hybrid_shared(densenet, resnet):
    return nn.Sequential(*stem(), densenet.features[4:6], resnet.layer3, *head())


def dense_hybrid_of_swapped_donors(resnet, densenet):
    return dense_hybrid(densenet, resnet)


def dense_hybrid_without_transition(densenet, resnet):
    parts = copy.deepcopy(densenet.features[4:5]), copy.deepcopy(resnet.layer3)
    return nn.Sequential(*stem(), *parts, *head())


def dense_hybrid_fresh(densenet, resnet):
    network = dense_hybrid(densenet, resnet)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()
    return network


def dense_hybrid_with_a_pooled_stem(densenet, resnet):
    parts = copy.deepcopy(densenet.features[4:6]), copy.deepcopy(resnet.layer3)
    return nn.Sequential(*stem(), nn.MaxPool2d(2), *parts, *head())


def dense_hybrid_flattened(densenet, resnet):
    parts = copy.deepcopy(densenet.features[4:6]), copy.deepcopy(resnet.layer3)
    return nn.Sequential(*stem(), *parts, nn.Flatten(), nn.Linear(256 * 64, 10))


RIGHT = {
    "hybrid_1": FITTING,
    "hybrid_2": {"parameters": 2_349_284, "last_map": 24, "factor": 18},
    "hybrid_3": move,
    "hybrid_4": dense_hybrid,
}

WRONG = {
    "hybrid_1": [
        FITTING[:1],
        [*FITTING, "resnet50.layer2"],
        [*FITTING, "vgg16_bn.features[7:13]"],
        [*FITTING, "mobilenet_v2.features[11:15]"],
        [*FITTING, "resnet18.layer3"],
        "resnet18.layer2",
    ],
    "hybrid_2": [
        2_349_284,
        {"parameters": 2_325_002, "last_map": 24, "factor": 18},
        {"parameters": 2_349_284, "last_map": 3, "factor": 18},
        {"parameters": 2_349_284, "last_map": 24, "factor": 9},
    ],
    "hybrid_3": [
        nn.Linear(2, 2),
        move_without_looking,
        move_one_by_one,
        move_by_numbers_of_values,
        move_parameters_only,
        move_by_sharing,
        move_back,
    ],
    "hybrid_4": [
        nn.Linear(2, 2),
        dense_hybrid_shared,
        dense_hybrid_of_swapped_donors,
        dense_hybrid_without_transition,
        dense_hybrid_fresh,
        dense_hybrid_with_a_pooled_stem,
        dense_hybrid_flattened,
    ],
}
