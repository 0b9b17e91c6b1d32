"""Which parts of the project a chapter depends on, as one fingerprint.

A chapter runs again when its own cells change, and also when something that it can reach does: a
module of the package that it uses, directly or through another, a bundled file, the pins, Python.
"""

import ast
import hashlib
import platform
import re
from functools import cache
from pathlib import Path

import nbformat

PACKAGE = "tlbook"
ALWAYS = ["requirements.txt", "tools/chapters.py"]
READS_ASSETS = {"data", "weights"}


def fingerprint(chapter: Path, root: Path) -> str:
    """Return a hash of everything outside the chapter that its results depend on."""
    files = [root / name for name in ALWAYS]
    modules = reachable_modules(chapter, root)
    files += [path for module in sorted(modules) for path in _files_of(module, chapter, root)]
    assets = root / PACKAGE / "assets"
    if modules & READS_ASSETS:
        files += sorted(path for path in assets.iterdir() if path.is_file())
    if "results" in modules:
        files += sorted((assets / "results").iterdir())
    digest = hashlib.sha256(platform.python_version().encode())
    for file in files:
        digest.update(file.relative_to(root).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def reachable_modules(chapter: Path, root: Path) -> set[str]:
    """Return the package's modules that a chapter uses, directly or through one another."""
    code = _code_of(chapter)
    names = set(re.findall(rf"\b{PACKAGE}\.(\w+)", code))
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            names |= {*node.module.split(".")[1:], *(alias.name for alias in node.names)}
    exported = _exports(root)
    waiting = {exported.get(name, name) for name in names} | {"__init__"}
    reached = set()
    while waiting:
        module = waiting.pop()
        if module not in reached and _files_of(module, chapter, root):
            reached.add(module)
            waiting |= _imports(module, root) if module != "__init__" else set()
    return reached


def _code_of(chapter: Path) -> str:
    notebook = nbformat.read(chapter, as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    lines = "\n".join(cells).splitlines()
    return "\n".join(re.sub(r"^(\s*)%.*", r"\1pass", line) for line in lines)


def _files_of(module: str, chapter: Path, root: Path) -> list[Path]:
    if module == "check":  # a chapter uses its own checks alone
        folder = root / PACKAGE / "check"
        return [folder / "grading.py", folder / f"{chapter.stem}.py"]
    file = root / PACKAGE / f"{module}.py"
    return [file] if file.exists() else []


@cache
def _exports(root: Path) -> dict[str, str]:
    """Return the module behind every name that the package exports."""
    tree = ast.parse((root / PACKAGE / "__init__.py").read_text())
    return {
        alias.name: node.module.split(".")[1]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE + ".")
        for alias in node.names
    }


def _imports(module: str, root: Path) -> set[str]:
    """Return the package's modules that a module names in its imports, wherever they stand."""
    found = set()
    file = root / PACKAGE / f"{module}.py"
    for node in ast.walk(ast.parse(file.read_text())) if file.exists() else []:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            found |= {*node.module.split(".")[1:], *(alias.name for alias in node.names)}
    return found
