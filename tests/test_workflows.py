"""The workflows are valid, and call the same make targets as a person."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_follows_its_schema(workflow):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema",
               "vendor.github-workflows", str(workflow)]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


@pytest.mark.skipif(not shutil.which("actionlint"), reason="actionlint is not installed here")
def test_actionlint_finds_nothing():
    run = subprocess.run(["actionlint", *map(str, WORKFLOWS)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_workflows_and_ci_call_make_targets_that_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = {}
    for file in [*WORKFLOWS, ROOT / ".ci" / "run", ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        pattern = r"(?:^\s*(?:- run: |\$ )?|`)make ([\w-]+)"
        called[file.name] = set(re.findall(pattern, file.read_text(), re.MULTILINE))
    assert all(called.values()), called
    assert set().union(*called.values()) <= targets


def test_ci_run_calls_what_the_readme_says():
    calls = re.findall(r"^make (\w+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert calls == ["book", "test"]
    readme = (ROOT / "README.md").read_text()
    assert all(f"make {call}" in readme for call in calls)
