"""Figures show what they should, are readable, and leave no trace behind them."""

import gc
import itertools
import random
import weakref
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import timm
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from nbclient import NotebookClient
from sklearn.metrics import confusion_matrix
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision import transforms as v1
from torchvision.models import ResNet18_Weights, resnet18, swin_t
from torchvision.transforms import v2

from tlbook.display import (
    imshow,
    new_figure,
    plot_confusion,
    plot_history,
    plot_shapes,
    show_maps,
    show_predictions,
    summary,
)
from tlbook.history import Epoch, History

ROOT = Path(__file__).parents[1]
CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]
CLASSES += ["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(autouse=True)
def agg():
    plt.switch_backend("agg")
    yield
    plt.close("all")
    mpl.rcdefaults()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, 12, 10, generator=torch.Generator().manual_seed(0))


def history(epochs: int, *, val: bool = True, accuracy: bool = True, best: int = 1) -> History:
    """Losses fall; the validation accuracy is highest in the epoch called best."""
    rows = [
        Epoch(
            epoch=number,
            train_loss=1 / number,
            train_accuracy=1 - 0.5 / number if accuracy else None,
            val_loss=1.2 / number if val else None,
            val_accuracy=(0.8 if number == best else 0.6) if val and accuracy else None,
            learning_rate=0.1,
            seconds=1.0,
            examples_per_second=100.0,
        )
        for number in range(1, epochs + 1)
    ]
    return History(rows)


def confusion(count: int, **settings):
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(100 * count) % count
    wrong = torch.rand(len(true), generator=generator) < 0.2
    said = torch.where(wrong, torch.randint(count, true.shape, generator=generator), true)
    return plot_confusion(true, said, classes=CLASSES[:count], **settings)


def shown(figure) -> list[np.ndarray]:
    pictures = (np.asarray(axes.images[0].get_array()) for axes in figure.axes)
    return [picture.reshape(*picture.shape[:2], -1) for picture in pictures]


def titles(figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def pixels(figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()


class TestImshow:
    def test_one_image_and_a_batch(self, images):
        assert len(imshow(images[0]).axes) == 1
        batch = shown(imshow(images))
        assert len(batch) == 4
        np.testing.assert_allclose(batch[2], images[2].permute(1, 2, 0).numpy())

    def test_grey_is_drawn_grey_and_on_the_whole_scale(self):
        figure = imshow(torch.full((1, 8, 8), 0.5))
        drawn = pixels(figure)
        middle = drawn[drawn.shape[0] // 2, drawn.shape[1] // 2]
        assert middle[0] == middle[1] == middle[2]
        assert 120 < middle[0] < 135

    def test_uint8_is_not_normalised(self, images):
        bytes_ = (images * 255).to(torch.uint8)
        figure = imshow(bytes_, transform=v2.Normalize(MEAN, STD))
        np.testing.assert_allclose(shown(figure)[0], bytes_[0].permute(1, 2, 0).numpy() / 255)

    def test_a_list_may_mix_sizes(self, images):
        figure = imshow([images[0], images[1, :1, :5]], labels=["whole", "grey crop"])
        assert [picture.shape for picture in shown(figure)] == [(12, 10, 3), (5, 10, 1)]
        assert titles(figure) == ["whole", "grey crop"]

    @pytest.mark.parametrize(
        "transform",
        [
            v2.Normalize(MEAN, STD),
            v1.Compose([v1.Normalize(0, 2), v1.Compose([v1.Normalize(MEAN, STD)])]),
            nn.Sequential(v2.Identity(), v2.Compose([v2.Normalize(MEAN, STD)])),
            ResNet18_Weights.DEFAULT.transforms(),
            timm.data.create_transform(32, mean=MEAN, std=STD),
        ],
        ids=["normalize", "nested", "sequential", "torchvision", "timm"],
    )
    def test_undoes_the_normalisation_of(self, transform, images):
        normal = v2.functional.normalize(images, list(MEAN), list(STD))
        figure = imshow(normal, transform=transform)
        np.testing.assert_allclose(shown(figure)[1], images[1].permute(1, 2, 0), atol=1e-5)

    def test_undoes_what_the_preset_really_does(self):
        preset = ResNet18_Weights.DEFAULT.transforms()
        photo = v2.functional.to_pil_image(torch.full((3, 256, 256), 51, dtype=torch.uint8))
        np.testing.assert_allclose(
            shown(imshow(preset(photo), transform=preset))[0], 0.2, atol=1e-5
        )

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (torch.full((3, 4, 4), -1.5), r"from -1.5 to -1.5; expected \[0, 1\]: give transform="),
            (torch.full((3, 4, 4), 255.0), r"to 255; expected \[0, 1\]"),
            (torch.full((3, 4, 4), float("nan")), "from nan to nan"),
            (torch.zeros(3, 4, 4, dtype=torch.long), "is torch.int64; expected floating point"),
            (torch.zeros(28, 28), r"shape \(28, 28\); expected \(C, H, W\)"),
            (torch.zeros(2, 4, 28, 28), r"shape \(4, 28, 28\)"),
            (torch.zeros(0, 3, 8, 8), "no images"),
        ],
    )
    def test_refuses(self, bad, message):
        with pytest.raises(ValueError, match=message):
            imshow(bad)

    def test_refuses_a_transform_of_other_channels(self):
        with pytest.raises(ValueError, match="normalises 3 channels, but an image has 1"):
            imshow(torch.zeros(1, 8, 8), transform=v2.Normalize(MEAN, STD))

    def test_forgives_the_overshoot_of_resampling(self):
        assert shown(imshow(torch.tensor([[[-0.01, 1.01]]])))[0].tolist() == [[[0.0], [1.0]]]

    def test_a_wrong_prediction_is_marked_without_colour(self, images):
        figure = imshow(images, labels=[0, 1, 2, 3], predictions=[0, 9, 2, 3], classes=CLASSES)
        assert titles(figure)[:2] == ["✓ T-shirt/top", "✗ Ankle boot\ntrue: Trouser"]
        right, wrong = (figure.axes[place].spines["left"] for place in (0, 1))
        assert wrong.get_linewidth() > 2 * right.get_linewidth()
        assert right.get_linestyle() == "-" != wrong.get_linestyle()
        weights = [figure.axes[place].title.get_fontweight() for place in (0, 1)]
        assert weights == ["normal", "bold"]

    def test_labels_and_predictions_alone(self, images):
        assert titles(imshow(images[0], labels=torch.tensor(1), classes=CLASSES)) == ["Trouser"]
        assert titles(imshow(images[:2], labels=torch.tensor([3, 7]))) == ["3", "7"]
        assert titles(imshow(images[0], predictions=1)) == ["predicted: 1"]

    def test_long_words_wrap_inside_their_column(self, images):
        names = ["a rather long name of a class"] * 8
        figure = imshow(images.repeat(2, 1, 1, 1), labels=names, columns=8)
        figure.draw_without_rendering()
        boxes = [axes.title.get_window_extent() for axes in figure.axes]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([0, 1], "2 labels for 4 images"),
            ([0, 1, 2, 10], r"labels contain 10; expected 0 to 9 for 10 classes"),
            ([0, 1, 2, -1], "labels contain -1"),
            (torch.rand(4, 10), r"shape \(4, 10\).*argmax"),
        ],
    )
    def test_refuses_labels(self, labels, message, images):
        with pytest.raises(ValueError, match=message):
            imshow(images, labels=labels, classes=CLASSES)


class Watched(nn.Module):
    """Draws random numbers, counts its calls, and notes the modes it is called in."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.head = nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Linear(16, 3)
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("last", torch.tensor(0.0))
        self.seen = []

    def forward(self, x):
        self.calls += 1
        self.last = torch.rand(()) + random.random() + np.random.default_rng().random()
        self.seen.append((self.training, self.drop.training, torch.is_inference_mode_enabled()))
        return self.head(self.drop(self.norm(x).flatten(1)))


class Squares(Dataset):
    """Grey squares, normalised, with random noise from three generators."""

    classes = ("ant", "bee", "cat")
    transform = v2.Normalize([0.5], [0.5])

    def __len__(self):
        return 30

    def __getitem__(self, index):
        noise = 0.1 * (torch.rand(1, 4, 4) + random.random() + np.random.rand())  # noqa: NPY002
        return self.transform(noise + index / 60), index % 3


@pytest.fixture
def model() -> Watched:
    torch.manual_seed(0)
    watched = Watched()
    watched.norm.eval()  # a mode of its own, as a frozen layer has
    return watched


def everything(model: nn.Module) -> list:
    """What a look at a model must not change, as values that can be compared."""
    return [
        [module.training for module in model.modules()],
        {name: value.clone() for name, value in model.state_dict().items()},
        [(id(buffer), buffer.is_inference()) for buffer in model.buffers()],
        torch.get_rng_state(),
        random.getstate(),
        [str(part) for part in np.random.get_state()],  # noqa: NPY002
        torch.is_grad_enabled(),
        [len(module._forward_hooks) for module in model.modules()],
    ]


def same(before: list, after: list) -> bool:
    states = [before[1], after[1]]
    tensors = all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    rest = [[*found[:1], *found[2:3], *found[4:]] for found in (before, after)]
    return tensors and torch.equal(before[3], after[3]) and rest[0] == rest[1]


class TestShowPredictions:
    def test_leaves_no_trace(self, model):
        before = everything(model)
        show_predictions(model, Squares(), count=3)
        assert model.seen == [(False, False, True)]
        assert same(before, everything(model))

    def test_leaves_no_trace_after_an_error(self, model):
        model.head = nn.Linear(5, 3)
        before = everything(model)
        with pytest.raises(RuntimeError):
            show_predictions(model, Squares())
        assert same(before, everything(model))
        assert plt.get_fignums() == []

    def test_words_and_pictures_are_the_models(self):
        data = Squares()
        torch.manual_seed(1)
        model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(16, 3))
        figure = show_predictions(model, data, count=12)
        model.eval()
        for picture, title in zip(shown(figure), titles(figure), strict=True):
            assert 0 <= picture.min() < picture.max() <= 0.8  # -1 to 0.6 when still normalised
            image = torch.from_numpy(picture).permute(2, 0, 1)
            probability, index = model(data.transform(image)[None]).softmax(1).max(1)
            mark, name, number = title.split("\n")[0].split()
            assert name == data.classes[index.item()]
            assert float(number) == pytest.approx(probability.item(), abs=0.006)
            assert (mark == "✗") == ("true: " in title)
            assert f"true: {name}" not in title

    def test_the_seed_decides_examples_and_noise(self, model):
        pictures = []
        for seed in (3, 3, 4):
            figure = show_predictions(model, Squares(), count=5, seed=seed)
            pictures.append(np.stack(shown(figure)))
            torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
        np.testing.assert_array_equal(pictures[0], pictures[1])
        assert not np.array_equal(pictures[0], pictures[2])

    def test_a_subset_has_its_datasets_classes_and_transform(self, model):
        figure = show_predictions(model, Subset(Subset(Squares(), range(9)), [0, 3]))
        assert len(figure.axes) == 2
        assert all("ant" in title for title in titles(figure))

    def test_refuses_a_head_of_another_size(self, model):
        model.head = nn.Linear(16, 1000)
        with pytest.raises(ValueError, match=r"shape \(8, 1000\); expected \(N, 3\)"):
            show_predictions(model, Squares())

    def test_refuses_nothing_and_other_images(self, model):
        with pytest.raises(ValueError, match="dataset has 0 examples"):
            show_predictions(model, TensorDataset(torch.zeros(0, 1, 4, 4), torch.zeros(0)))
        with pytest.raises(TypeError, match="images of type ndarray"):
            show_predictions(model, [(np.zeros((4, 4)), 0)])


class TestPlotHistory:
    def test_training_is_dashed_and_validation_solid(self):
        for axes in plot_history(history(3, best=2)).axes:
            train, val = axes.lines[:2]
            assert (train.get_linestyle(), val.get_linestyle()) == ("--", "-")
        figure = plot_history(history(3))
        assert figure.axes[0].lines[0].get_ydata().tolist() == [1, 1 / 2, 1 / 3]
        assert figure.axes[1].lines[1].get_ydata().tolist() == [0.8, 0.6, 0.6]

    @pytest.mark.parametrize("best", [1, 4, 6])
    def test_the_best_epoch_is_starred_in_both_panels(self, best):
        panels = plot_history(history(6, best=best)).axes
        for axes, value in zip(panels, (1.2 / best, 0.8), strict=True):
            stars = [line.get_xydata() for line in axes.lines if line.get_marker() == "*"]
            assert [star.tolist() for star in stars if star.size] == [[[best, value]]]

    @pytest.mark.parametrize("epochs", [1, 2, 3, 15, 60])
    def test_ticks_are_whole_epochs(self, epochs):
        for axes in plot_history(history(epochs)).axes:
            low, high = axes.get_xlim()
            ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
            assert ticks
            assert all(tick == round(tick) >= 1 for tick in ticks)

    def test_names_compare_runs(self):
        runs = {"frozen": history(4), "fine-tuned": history(9), "from scratch": history(2)}
        figure = plot_history(runs)
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert sorted(legend) == sorted(["training", "validation", "best epoch", *runs])
        solid = [line for line in figure.axes[0].lines[:9] if line.get_linestyle() == "-"]
        assert len({line.get_color() for line in solid}) == 3
        assert len({line.get_marker() for line in solid}) == 3
        assert len(plot_history(history(1), history(2)).axes[0].lines[0].get_xdata()) == 1

    def test_without_validation_or_accuracy(self):
        figure = plot_history(history(3, val=False))
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["training"]
        assert len([line for line in figure.axes[0].lines if len(line.get_xdata())]) == 1
        loss, accuracy = plot_history(history(3, accuracy=False)).axes
        assert [text.get_text() for text in accuracy.texts] == ["not measured"]
        assert len(loss.lines[1].get_xdata()) == 3

    def test_refuses_no_epochs(self):
        with pytest.raises(ValueError, match="no history"):
            plot_history()
        with pytest.raises(ValueError, match="b without epochs"):
            plot_history({"a": history(1), "b": History()})


class TestPlotConfusion:
    def test_counts_are_scikit_learns(self):
        true, said = torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([0, 1, 0, 1, 2, 0])
        axes = plot_confusion(true, said, classes=["a", "b", "c"]).axes[0]
        counts = confusion_matrix(true, said)
        texts = np.array([text.get_text() for text in axes.texts]).reshape(3, 3)
        assert [[int(text.split("\n")[0]) for text in row] for row in texts] == counts.tolist()
        assert texts[0].tolist() == ["2\n67%", "1\n33%", "0"]
        assert axes.get_ylabel() == "true class"
        assert axes.get_xlabel().startswith("predicted class")
        assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]

    def test_a_class_that_never_occurs_keeps_its_row(self):
        axes = plot_confusion([0, 1], [0, 0], classes=["a", "b", "c"]).axes[0]
        assert [text.get_text() for text in axes.texts][6:] == ["0", "0", "0"]

    def test_counts_alone(self):
        axes = plot_confusion([0, 1, 1], [0, 1, 1], classes=["a", "b"], normalize=False).axes[0]
        assert [text.get_text() for text in axes.texts] == ["1", "0", "0", "2"]
        assert axes.images[0].get_array().tolist() == [[0.5, 0], [0, 1]]

    @pytest.mark.parametrize("count", [2, 10])
    def test_numbers_fit_their_cells(self, count):
        figure = confusion(count)
        figure.draw_without_rendering()
        axes = figure.axes[0]
        cell = axes.get_window_extent().width / count
        assert cell / figure.dpi >= 0.48  # inches
        for text in axes.texts:
            box = text.get_window_extent()
            assert max(box.width, box.height) < 0.95 * cell

    def test_names_slant_where_they_would_touch(self):
        short, long = (confusion(count).axes[0].get_xticklabels() for count in (2, 10))
        assert [label.get_rotation() for label in (short[0], long[0])] == [0, 40]

    @pytest.mark.parametrize(
        ("true", "said", "message"),
        [
            ([0, 1], [0], "2 targets and 1 predictions"),
            ([], [], "0 targets|type torch.float32"),
            ([0, 2], [0, 1], "targets contain 2; expected 0 to 1 for 2 classes"),
            ([0, 1], torch.rand(2, 2), r"predictions have shape \(2, 2\).*argmax"),
        ],
    )
    def test_refuses(self, true, said, message):
        with pytest.raises(ValueError, match=message):
            plot_confusion(true, said, classes=["a", "b"])


class TestSummary:
    def test_text_is_the_same_everywhere(self):
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
        network[1].requires_grad_(False)
        lines = str(summary(network, (2, 3, 6, 6))).splitlines()
        rows = [line.split("  ") for line in lines if "─" in line]
        assert [[cell.strip() for cell in row if cell] for row in rows] == [
            ["├─Conv2d (0): 1-1", "[2, 4, 4, 4]", "112", "True", "3,584"],
            ["├─BatchNorm2d (1): 1-2", "[2, 4, 4, 4]", "(8)", "False", "16"],
            ["├─Flatten (2): 1-3", "[2, 64]", "--", "--", "--"],
        ]
        assert "Total mult-adds: 3,600" in lines

    def test_leaves_no_trace(self, model):
        before = everything(model)
        summary(model, (2, 1, 4, 4))
        assert [seen[:2] for seen in model.seen] == [(False, False)]
        assert same(before, everything(model))

    def test_leaves_no_trace_after_an_error(self, model):
        before = everything(model)
        with pytest.raises(RuntimeError, match="Failed to run torchinfo"):
            summary(model, (2, 1, 5, 5))
        assert same(before, everything(model))

    def test_backward_still_works_after_a_look_in_between(self, model):
        loss = model(torch.rand(2, 1, 4, 4)).sum()
        summary(model, (1, 1, 4, 4))
        loss.backward()
        assert model.head.weight.grad is not None

    def test_depth(self):
        network = nn.Sequential(nn.Sequential(nn.Linear(2, 2)))
        assert "Linear" in str(summary(network, (1, 2)))
        assert "Linear" not in str(summary(network, (1, 2), depth=1))

    def test_half_precision_and_no_parameters(self):
        assert "[1, 2]" in str(summary(nn.Linear(2, 2).bfloat16(), (1, 2)))
        assert "[1, 4]" in str(summary(nn.Flatten(), (1, 2, 2)))

    def test_the_weights_are_not_kept_in_memory(self):
        network = nn.Linear(2, 2)
        summary(network, (1, 2))
        gone = weakref.ref(network)
        del network
        gc.collect()
        assert gone() is None

    def test_refuses_to_create_lazy_layers(self):
        network = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
        with pytest.raises(ValueError, match="Sequential has lazy layers"):
            summary(network, (1, 1, 4, 4))
        assert network[1].has_uninitialized_params()


def every_figure() -> dict:
    """One figure of each kind, at its smallest and its fullest."""
    grey = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    runs = {f"a run with a name {number}": history(3 * number) for number in range(1, 5)}
    torch.manual_seed(0)
    return {
        "one image": imshow(grey[0], labels="a caption"),
        "grid": imshow(grey, labels=range(8), predictions=[1] * 8, classes=CLASSES, title="Grid"),
        "tall": imshow(torch.rand(2, 3, 60, 20), columns=1),
        "predictions": show_predictions(Watched(), Squares(), title="Predictions"),
        "one epoch": plot_history(history(1)),
        "runs": plot_history(runs, title="Four runs"),
        "no accuracy": plot_history(history(2, accuracy=False)),
        "two classes": confusion(2),
        "ten classes": confusion(10, title="Ten classes"),
        "long names": plot_confusion([0, 1], [1, 1], classes=["a long name of a class", "b"]),
    }


@pytest.fixture(scope="module")
def figures() -> dict:
    return every_figure()


class TestFigures:
    def test_are_readable(self, figures):
        for name, figure in figures.items():
            texts = figure.findobj(lambda art: hasattr(art, "get_fontsize") and art.get_text())
            assert all(text.get_fontsize() >= 9 for text in texts), name
            assert figure.get_figwidth() <= 6.4, name
            assert figure.get_facecolor() == (1, 1, 1, 1), name
            for axes in figure.axes:
                assert bool(axes.get_xlabel()) == bool(len(axes.get_xticks())), name
                assert bool(axes.get_ylabel()) == bool(len(axes.get_yticks())), name

    def test_show_all_they_hold(self, figures):
        for name, figure in figures.items():
            figure.draw_without_rendering()
            box = figure.get_tightbbox()
            assert box.x0 >= -0.02, name
            assert box.y0 >= -0.02, name
            assert box.x1 <= figure.get_figwidth() + 0.02, name
            assert box.y1 <= figure.get_figheight() + 0.02, name

    def test_look_the_same_whatever_the_readers_style(self):
        expected = {name: pixels(figure) for name, figure in every_figure().items()}
        plt.style.use("dark_background")
        loud = {"font.size": 30, "xtick.major.size": 20, "image.cmap": "hot", "axes.grid": True}
        mpl.rcParams.update(loud, **{"figure.frameon": False, "image.origin": "lower"})
        for name, figure in every_figure().items():
            np.testing.assert_array_equal(pixels(figure), expected[name], err_msg=name)

    def test_leave_pyplot_as_it_was(self):
        mine = [plt.figure() for _ in range(3)]
        plt.figure(mine[1].number)
        mpl.rcParams["lines.linewidth"] = 7
        before = dict(mpl.rcParams)
        imshow(torch.rand(2, 1, 4, 4))
        plot_history(history(2))
        confusion(2)
        with pytest.raises(KeyboardInterrupt), new_figure(3, 3, "interrupted"):
            raise KeyboardInterrupt
        assert dict(mpl.rcParams) == before
        assert plt.gcf() is mine[1]
        assert plt.get_fignums() == [figure.number for figure in mine]


CELLS = {
    "set-up": (
        """import sys, torch
before = set(sys.modules)
from tlbook.display import imshow, plot_confusion, plot_history, show_predictions, summary
from tlbook.history import Epoch, History
data = torch.utils.data.TensorDataset(torch.rand(9, 1, 4, 4), torch.zeros(9).long())
print({"matplotlib", "torchinfo"} & (set(sys.modules) - before))""",
        ["stream"],
    ),
    "assigned first": ("figure = imshow(data.tensors[0])", []),
    "last line": ("imshow(data.tensors[0])", ["execute_result"]),
    "not the last line": ("imshow(data.tensors[0])\nprint('done')", ["stream"]),
    "the figure again": ("figure", ["execute_result"]),
    "predictions": (
        "show_predictions(torch.nn.Flatten(), data, count=2)",
        ["execute_result"],
    ),
    "history": (
        "plot_history(History([Epoch(1, 0.9, 0.6, 0.8, 0.7, 0.1, 2.0, 500.0)]))",
        ["execute_result"],
    ),
    "confusion": ("plot_confusion([0, 1], [1, 1], classes=['a', 'b'])", ["execute_result"]),
    "the reader's own": (
        "import matplotlib.pyplot as plt\nlines = plt.plot([1, 2])",
        ["display_data"],
    ),
    "both": ("lines = plt.plot([1, 2])\nimshow(data[0][0])", ["execute_result", "display_data"]),
    "summary": ("summary(torch.nn.Flatten(), (1, 2, 2))", ["execute_result"]),
}


def test_a_notebook_shows_each_figure_once(tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    cells = [nbformat.v4.new_code_cell(source) for source, _ in CELLS.values()]
    notebook = nbformat.v4.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(ROOT)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    for (name, (_, expected)), cell in zip(CELLS.items(), notebook.cells, strict=True):
        outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        assert [output.output_type for output in outputs] == expected, name
        pictures = ["image/png" in output.get("data", {}) for output in outputs]
        assert pictures == [kind != "stream" and name != "summary" for kind in expected], name
    light = [output.text for output in notebook.cells[0].outputs if output.name == "stdout"]
    assert light == ["set()\n"]  # importing tlbook did not import what only a picture needs


def test_maps_share_one_range_or_have_their_own():
    maps = torch.stack([torch.linspace(-1, 1, 16), torch.linspace(0, 0.1, 16)]).view(2, 4, 4)
    shared = [axes.images[0].get_array() for axes in show_maps(maps).axes]
    own = [axes.images[0].get_array() for axes in show_maps(maps, shared=False).axes]
    assert (shared[0].min(), shared[0].max()) == (0, 1)
    assert shared[1].min() == pytest.approx(0.5) and shared[1].max() == pytest.approx(0.55)
    assert [(picture.min(), picture.max()) for picture in own] == [(0, 1), (0, 1)]


def test_maps_of_one_value_and_filters_in_colour():
    assert show_maps(torch.zeros(1, 4, 4)).axes[0].images[0].get_array().max() == 0
    filters = nn.Conv2d(3, 5, 7).weight
    figure = show_maps(filters, labels=[str(n) for n in range(5)])
    assert [axes.get_title() for axes in figure.axes] == list("01234")
    assert figure.axes[0].images[0].get_array().shape == (7, 7, 3)


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        (torch.zeros(4), r"shape \(4,\); expected \(K, H, W\)"),
        (torch.zeros(0, 4, 4), "shape"),
        (torch.zeros(2, 5, 4, 4), "1 or 3 channels"),
        (torch.full((1, 2, 2), torch.nan), "not finite"),
    ],
)
def test_maps_that_do_not_fit(maps, words):
    with pytest.raises(ValueError, match=words):
        show_maps(maps)


def test_shapes_along_a_network():
    model = resnet18()
    axes = plot_shapes(model, (1, 3, 64, 64)).axes[0]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == [
        "input",
        "conv1",
        "maxpool",
        "layer2.0",
        "layer3.0",
        "layer4.0",
        "avgpool",
        "fc",
    ]
    words = [text.get_text().replace("\u2009", "") for text in axes.texts]
    assert words[:3] == ["3×64×64", "64×32×32", "64×16×16"] and words[-1] == "1000"
    heights = [bar.get_height() for bar in axes.patches]
    assert heights[:6] == [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32]
    assert model.training and model.bn1.num_batches_tracked == 0


def test_shapes_of_a_network_that_keeps_channels_last_and_of_a_wrong_input():
    axes = plot_shapes(swin_t(), (1, 3, 64, 64)).axes[0]
    assert axes.texts[1].get_text().replace("\u2009", "") == "96×16×16"
    with pytest.raises(RuntimeError, match="conv1"):
        plot_shapes(resnet18(), (1, 1, 64, 64))
