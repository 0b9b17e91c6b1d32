"""The shape of the package and the project: what may import what, sizes, names, versions."""

import ast
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import tlbook

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tlbook"
MODULES = sorted(PACKAGE.glob("*.py"))

# A module may import from its own layer and those above it in this list.
LAYERS = [
    {"runtime", "files", "results"},
    {"paths", "heads", "surgery", "freezing", "findings", "audit"},
    {"models"},
    {"download", "statedict", "weights"},
    {"folders", "splits", "grouping", "journal", "moving", "sources", "grey", "data"},
    {"batches", "history", "loop", "checkpoint", "preflight", "ranks", "training"},
    {"cutting", "fingerprints", "probes", "features"},
    {"pictures", "inspection", "alignment", "comparison", "drawing", "display", "check"},
    {"isolation", "identity", "leaks", "resampling", "candidates", "cluster", "folds",
     "significance", "plots", "report", "halving", "selection"},
    {"__init__", "__main__"},
]  # fmt: skip

PUBLIC = {
    "runtime": ["best_precision", "get_device", "seed_everything"],
    "results": ["load_result"],
    "data": ["DataError", "class_counts", "few_shot_subset", "grouped_split", "image_folder",
             "load_dataset", "make_loaders", "stratified_split"],
    "weights": ["FetchError", "LoadReport", "Pretrained", "WeightsError", "fetch",
                "load_pretrained", "load_weights", "rename_keys", "save_weights"],
    "freezing": ["freeze", "frozen_names", "param_groups", "trainable_parameters", "unfreeze"],
    "surgery": ["Audit", "adapt_in_channels", "append", "audit", "delete", "get_head",
                "insert_after", "replace", "replace_head", "replace_stem", "truncate_after"],
    "features": ["extract_features", "feature_extractor", "linear_probe", "split_at", "to_linear"],
    "models": ["HalfFrozenResNet", "HybridNet", "MLPHead", "PlainHybridNet", "SlimVGG"],
    "training": ["BatchError", "CheckpointError", "Epoch", "History", "Metrics", "TrainingError",
                 "evaluate", "fit", "predict", "train_one_epoch"],
    "display": ["Comparison", "compare_models", "imshow", "plot_confusion", "plot_history",
                "plot_shapes", "show_maps", "show_predictions", "summary"],
    "selection": ["LearningCurve", "PairedTest", "SelectionError", "SelectionReport",
                  "cross_validate", "find_duplicates", "learning_curve", "paired_test",
                  "successive_halving"],
}  # fmt: skip


def imports_of(module):
    """The package's modules that a module imports, and outside packages, wherever it does."""
    inside, outside = set(), set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "tlbook":
            inside |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("tlbook."):
            inside.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom):
            outside.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            outside |= {alias.name.split(".")[0] for alias in node.names}
    return inside, outside


def layer_of(name):
    return next((number for number, layer in enumerate(LAYERS) if name in layer), None)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_imports_go_one_way(module):
    own = layer_of(module.stem)
    assert own is not None, f"{module.name} stands in no layer of {__file__}"
    for imported in imports_of(module)[0]:
        assert layer_of(imported) is not None and layer_of(imported) <= own, imported


def test_modules_do_not_import_each_other_in_a_circle():
    graph = {module.stem: imports_of(module)[0] for module in MODULES}

    def reach(name, seen):
        for following in graph.get(name, set()) - seen:
            seen.add(following)
            reach(following, seen)
        return seen

    assert [name for name in graph if name in reach(name, set())] == []


def test_matplotlib_is_imported_for_display_only():
    users = {m.stem for m in MODULES if imports_of(m)[1] & {"matplotlib", "mpl_toolkits"}}
    assert users <= {"display", "drawing"}
    code = "import sys, tlbook; print('matplotlib' in sys.modules, 'timm' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


CHECKS, TOOLS = (PACKAGE / "check").glob("*.py"), (ROOT / "tools").glob("*.py")


@pytest.mark.parametrize("module", [*MODULES, *CHECKS, *TOOLS], ids=lambda path: path.stem)
def test_modules_and_functions_are_short(module):
    assert len(module.read_text().splitlines()) <= 300
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 40, f"{node.name} has {lines} lines"


def test_the_public_names_are_these():
    expected = sorted(name for names in PUBLIC.values() for name in names)
    assert sorted(set(tlbook.__all__) - {"check"}) == expected
    for module, names in PUBLIC.items():
        for name in names:
            found = getattr(getattr(__import__(f"tlbook.{module}"), module), name)
            assert getattr(tlbook, name) is found


def test_every_public_function_has_an_example_or_is_shown_in_the_book():
    for name in sorted(set(tlbook.__all__) - {"check"}):
        assert (getattr(tlbook, name).__doc__ or "").strip(), f"{name} has no docstring"


def pins():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonical(name): Version(version) for name, version in pairs}


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_pyproject_allows_contains_what_requirements_pins():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    del extras["ray"]  # the book shows it and does not run it
    wanted = [*project["dependencies"], *chain(*extras.values())]
    pinned = pins()
    for requirement in map(Requirement, wanted):
        if canonical(requirement.name) != "tlbook":
            assert requirement.specifier.contains(pinned[canonical(requirement.name)]), requirement


def test_the_package_names_every_library_that_it_imports():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *project["optional-dependencies"]["cluster"]]
    declared = {canonical(Requirement(text).name) for text in listed}
    known_as = {"PIL": "pillow", "sklearn": "scikit-learn", "elpv_dataset": "elpv-dataset"}
    files = [*MODULES, *(PACKAGE / "check").glob("*.py")]
    outside = set().union(*(imports_of(module)[1] for module in files))
    needed = {known_as.get(name, name) for name in outside - set(sys.stdlib_module_names)}
    assert {canonical(name) for name in needed} <= declared


def test_the_repository_address_is_the_same_everywhere():
    from tools.set_repo import addresses

    assert len(set(addresses(ROOT).values())) == 1, addresses(ROOT)


def test_no_file_holds_a_path_of_one_machine():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    path = re.compile(r"(?<![\w./])/(?:home|Users|root|work)/\w+")
    for name in listed.stdout.split():
        file = ROOT / name
        if file.suffix in {".py", ".md", ".ipynb", ".toml", ".yml", ".txt"} and file != Path(
            __file__
        ):
            assert not path.search(file.read_text()), name
