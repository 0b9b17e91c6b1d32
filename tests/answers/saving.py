"""Right and typically wrong answers to the exercises of *saving*."""

import copy
from pathlib import Path

import torch
from torch import nn


def halve(network):
    halved = {}
    for key, tensor in network.state_dict().items():
        short = tensor.half()
        fits = tensor.is_floating_point() and short.isfinite().all()
        halved[key] = short if fits else tensor
    return halved


def halve_all(network):
    return {key: tensor.half() for key, tensor in network.state_dict().items()}


def halve_all_floats(network):
    return {
        key: tensor.half() if tensor.is_floating_point() else tensor
        for key, tensor in network.state_dict().items()
    }


def halve_integers_too(network):
    return {
        key: tensor.half() if tensor.abs().max() < 65_504 else tensor
        for key, tensor in network.state_dict().items()
    }


def halve_without_a_look_below_zero(network):
    return {
        key: tensor.half() if tensor.is_floating_point() and tensor.max() < 65_504 else tensor
        for key, tensor in network.state_dict().items()
    }


def halve_the_network(network):
    return network.half().state_dict()


def halve_and_go_back(network):
    halved = copy.deepcopy(network.half().state_dict())
    network.float()
    return halved


def halve_parameters(network):
    return {key: parameter.detach().half() for key, parameter in network.named_parameters()}


def halve_to_bfloat16(network):
    return {key: tensor.bfloat16() for key, tensor in halve(network).items()}


def halve_by_clamping(network):
    return {
        key: tensor.clamp(-65_504, 65_504).half() if tensor.is_floating_point() else tensor
        for key, tensor in network.state_dict().items()
    }


def halve_and_return_nothing(network):
    halve(network)


def halve_to_lists(network):
    return {key: tensor.tolist() for key, tensor in network.state_dict().items()}


def save_run(path, model, optimizer, scheduler, epoch):
    saved = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "random": torch.get_rng_state(),
        "epoch": epoch,
    }
    torch.save(saved, path)


def load_run(path, model, optimizer, scheduler, left_out=()):
    saved = torch.load(path, map_location="cpu", weights_only=True)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    for name, part in parts.items():
        if name not in left_out:
            part.load_state_dict(saved[name])
    if "random" not in left_out:
        torch.set_rng_state(saved["random"])
    return saved["epoch"]


def load_without(*left_out):
    return lambda *arguments: load_run(*arguments, left_out=left_out)


def load_without_buffers(path, model, optimizer, scheduler):
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    epoch = load_run(path, model, optimizer, scheduler)
    model.load_state_dict(buffers, strict=False)
    return epoch


def load_and_forget_the_epoch(*arguments):
    load_run(*arguments)


def load_and_add_one(*arguments):
    return load_run(*arguments) + 1


def save_with_the_seed(path, *run):
    save_run(path, *run)
    torch.save({**torch.load(path), "random": torch.random.initial_seed()}, path)


def load_and_seed(*arguments):
    epoch = load_run(*arguments, left_out=("random",))
    torch.manual_seed(torch.load(arguments[0])["random"])
    return epoch


def load_and_draw(*arguments):
    epoch = load_run(*arguments)
    nn.Linear(2, 2)
    return epoch


def load_other_objects(path, model, optimizer, scheduler):
    return load_run(path, *copy.deepcopy((model, optimizer, scheduler)))


def load_and_freeze(path, model, optimizer, scheduler):
    epoch = load_run(path, model, optimizer, scheduler)
    next(model.parameters()).requires_grad_(False)
    return epoch


def save_objects(path, model, optimizer, scheduler, epoch):
    torch.save((model, optimizer, scheduler, epoch), path)


def save_a_note(path, model, optimizer, scheduler, epoch):
    Path(path).write_text(f"stopped after epoch {epoch}")


def save_elsewhere(path, *run):
    save_run(f"{path}.bak", *run)


RIGHT = {
    "saving_1": 4_590_016,
    "saving_2": {
        "classes": "refused",
        "dropout": "same",
        "memory": "same",
        "depth": "refused",
        "eps": "other",
        "bfloat16": "other",
        "parallel": "refused",
    },
    "saving_3": halve,
    "saving_4": (save_run, load_run),
}

WRONG = {
    "saving_1": [
        9_179_584,
        4_589_792,
        4_589_680,
        4_557_208,
        2_294_840,
        4_589_792.0,
        4_621_496,
        4.59,
        {"bytes": 1},
    ],
    "saving_2": [
        "refused",
        {"classes": "refused"},
        {**RIGHT["saving_2"], "eps": "same"},
        {**RIGHT["saving_2"], "eps": "refused"},
        {**RIGHT["saving_2"], "dropout": "other"},
        {**RIGHT["saving_2"], "memory": "refused"},
        {**RIGHT["saving_2"], "depth": "other"},
        {**RIGHT["saving_2"], "bfloat16": "refused"},
        {**RIGHT["saving_2"], "bfloat16": "same"},
        {**RIGHT["saving_2"], "parallel": "same"},
        {**RIGHT["saving_2"], "classes": "other"},
        {**RIGHT["saving_2"], "classes": "Refused"},
        {**RIGHT["saving_2"], "eps": "different"},
    ],
    "saving_3": [
        nn.Linear(2, 2),
        halve_all,
        halve_all_floats,
        halve_integers_too,
        halve_without_a_look_below_zero,
        halve_the_network,
        halve_and_go_back,
        halve_parameters,
        halve_to_bfloat16,
        halve_by_clamping,
        halve_and_return_nothing,
        halve_to_lists,
    ],
    "saving_4": [
        save_run,
        (save_run,),
        (save_run, "load_run"),
        (save_run, load_without("model")),
        (save_run, load_without("optimizer")),
        (save_run, load_without("scheduler")),
        (save_run, load_without("random")),
        (save_run, load_without_buffers),
        (save_run, load_and_forget_the_epoch),
        (save_run, load_and_add_one),
        (save_run, load_and_draw),
        (save_with_the_seed, load_and_seed),
        (save_run, load_other_objects),
        (save_run, load_and_freeze),
        (save_objects, load_run),
        (save_a_note, load_run),
        (save_elsewhere, load_run),
    ],
}
