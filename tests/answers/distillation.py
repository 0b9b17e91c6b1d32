"""Right and typically wrong answers to the exercises of *distillation*."""

import copy

import torch
from torch.nn import functional as F


def divergence(student, teacher, temperature):
    log_q = F.log_softmax(student / temperature, dim=1)
    p = F.softmax(teacher / temperature, dim=1)
    return F.kl_div(log_q, p, reduction="batchmean")


def distilled(student, teacher, labels, temperature, share):
    soft = divergence(student, teacher.detach(), temperature)
    return (1 - share) * F.cross_entropy(student, labels) + share * temperature**2 * soft


def without_factor(student, teacher, labels, temperature, share):
    soft = divergence(student, teacher.detach(), temperature)
    return (1 - share) * F.cross_entropy(student, labels) + share * soft


def to_the_teacher_too(student, teacher, labels, temperature, share):
    soft = divergence(student, teacher, temperature)
    return (1 - share) * F.cross_entropy(student, labels) + share * temperature**2 * soft


def shares_exchanged(student, teacher, labels, temperature, share):
    return distilled(student, teacher, labels, temperature, 1 - share)


def roles_exchanged(student, teacher, labels, temperature, share):
    soft = divergence(teacher.detach(), student, temperature)
    return (1 - share) * F.cross_entropy(student, labels) + share * temperature**2 * soft


def with_the_entropy(student, teacher, labels, temperature, share):
    p = (teacher.detach() / temperature).softmax(dim=1)
    soft = F.cross_entropy(student / temperature, p)
    return (1 - share) * F.cross_entropy(student, labels) + share * temperature**2 * soft


def without_logarithm(student, teacher, labels, temperature, share):
    q, p = ((z / temperature).softmax(dim=1) for z in (student, teacher.detach()))
    soft = F.kl_div(q, p, reduction="batchmean")
    return (1 - share) * F.cross_entropy(student, labels) + share * temperature**2 * soft


def as_a_number(student, teacher, labels, temperature, share):
    return distilled(student, teacher, labels, temperature, share).item()


def without_graph(student, teacher, labels, temperature, share):
    return distilled(student, teacher, labels, temperature, share).detach()


def soft_targets(teacher, images, views, temperature):
    quiet = copy.deepcopy(teacher).eval()
    with torch.no_grad():
        rows = [quiet(view(images)) for view in views]
    return (torch.cat(rows) / temperature).softmax(dim=1)


def in_its_mode(teacher, images, views, temperature):
    with torch.no_grad():
        rows = [teacher(view(images)) for view in views]
    return (torch.cat(rows) / temperature).softmax(dim=1)


def left_in_eval(teacher, images, views, temperature):
    return in_its_mode(teacher.eval(), images, views, temperature)


def train_for_all(teacher, images, views, temperature):
    found = soft_targets(teacher, images, views, temperature)
    teacher.train()
    return found


def with_graph(teacher, images, views, temperature):
    quiet = copy.deepcopy(teacher).eval()
    return (torch.cat([quiet(view(images)) for view in views]) / temperature).softmax(dim=1)


def image_by_image(teacher, images, views, temperature):
    rows = soft_targets(teacher, images, views, temperature)
    return rows.unflatten(0, (len(views), -1)).transpose(0, 1).flatten(0, 1)


def at_one(teacher, images, views, temperature):
    return soft_targets(teacher, images, views, 1)


def stacked(teacher, images, views, temperature):
    return soft_targets(teacher, images, views, temperature).unflatten(0, (len(views), -1))


RIGHT = {
    "distillation_1": 10,
    "distillation_2": distilled,
    "distillation_3": ["a", "c", "e"],
    "distillation_4": soft_targets,
}

WRONG = {
    "distillation_1": [640, 64, 0.1, "10", 100],
    "distillation_2": [
        without_factor,
        to_the_teacher_too,
        shares_exchanged,
        roles_exchanged,
        with_the_entropy,
        without_logarithm,
        as_a_number,
        without_graph,
        lambda student, teacher, labels, temperature, share: None,
    ],
    "distillation_3": [["a"], "all", ["a", "b", "c", "e"], {"c", "e"}, ["a", "c", "e", "f"], 3],
    "distillation_4": [
        in_its_mode,
        left_in_eval,
        train_for_all,
        with_graph,
        image_by_image,
        at_one,
        stacked,
        lambda teacher, images, views, temperature: None,
    ],
}
