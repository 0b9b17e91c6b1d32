"""What the rendered book does differently from Jupyter Book's defaults.

Everything that a page loads comes from the book itself: formulas use a copy of MathJax, and Thebe,
which would come from another site and which no page uses, is left out. A chapter that was executed
again is rendered again, also where its own file has not changed.
"""

import json
from importlib.util import find_spec
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util.fileutil import copy_asset

# What tex-chtml.js may ask for; the package carries MathJax's other outputs as well.
MATHJAX_PARTS = ["tex-chtml.js", "input/tex", "output/chtml", "a11y", "sre"]


def drop_thebe(app: Sphinx, config: Config) -> None:
    """Disconnect the extension that Jupyter Book always loads."""
    for listeners in app.events.listeners.values():
        listeners[:] = [
            listener
            for listener in listeners
            if not listener.handler.__module__.startswith("sphinx_thebe")
        ]
    app.registry.css_files[:] = [file for file in app.registry.css_files if "thebe" not in file[0]]


def find_executed_again(
    app: Sphinx, env: BuildEnvironment, added: set, changed: set, removed: set
) -> list[str]:
    """Return the chapters that have run since they were rendered, whatever made them run."""
    ledger = Path(app.srcdir) / "_build" / "execution.json"
    rows = json.loads(ledger.read_text()) if ledger.exists() else {}
    executed = {name.removesuffix(".ipynb"): row["executed"] for name, row in rows.items()}
    rendered = getattr(env, "rendered_executions", {})
    env.rendered_executions = executed
    return [name for name in executed if executed[name] != rendered.get(name)]


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Put the parts of MathJax that pages load beside the other static files."""
    if error is not None:
        return
    source = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    target = Path(app.outdir) / "_static" / "mathjax"
    for part in MATHJAX_PARTS:
        folder = (target / part).parent if (source / part).is_file() else target / part
        copy_asset(source / part, folder)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("config-inited", drop_thebe)
    app.connect("env-get-outdated", find_executed_again)
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
