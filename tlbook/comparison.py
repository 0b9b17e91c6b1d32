"""What an operation changed in a network, as a picture of blocks and as text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape

from torch import nn

from tlbook.alignment import Block, Row, Side, measure, rows

# Okabe and Ito's palette; the words beside the blocks say the same.
EDGES = {
    "same": "1px solid rgba(128,128,128,.5)",
    "changed": "3px solid #E69F00",
    "removed": "3px dashed #D55E00",
    "added": "3px double #009E73",
}
CELL = "text-align: left; vertical-align: top; padding: .3em .6em"


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two networks side by side; a notebook shows blocks, print() gives text.

    `before` and `after` hold the totals, `rows` the blocks in order, each "same", "changed",
    "removed" or "added".
    """

    before: Side
    after: Side
    rows: tuple[Row, ...]

    @property
    def changes(self) -> tuple[Row, ...]:
        """The rows that are not the same."""
        return tuple(row for row in self.rows if row.mark != "same")

    def _totals(self) -> Iterator[tuple[str, str, str]]:
        for title, name in [
            ("parameters", "parameters"), ("trainable", "trainable"),
            ("mult-adds", "mult_adds"), ("output", "output"),
        ]:  # fmt: skip
            values = [getattr(side, name) for side in (self.before, self.after)]
            yield title, *(f"{v:,}" if isinstance(v, int) else v or "none" for v in values)

    def _failures(self) -> Iterator[str]:
        for when, side in (("before", self.before), ("after", self.after)):
            if side.failure:
                yield f"forward fails {when}: {side.failure}"

    def __str__(self) -> str:
        table = [("", "before", "after"), *self._totals()]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            for line in table
        ]
        rows = (line for row in self.rows for line in _lines(row))
        return "\n".join([*lines, *self._failures(), *rows])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        names = f"before: {self.before.name}", f"after: {self.after.name}"
        lines = [_line(("", *names), "th")]
        lines += [_line(total) for total in self._totals()]
        lines += [_picture(row) for row in self.rows]
        failures = "".join(f"<p>{escape(failure)}</p>" for failure in self._failures())
        return f"<table>{''.join(lines)}</table>{failures}"


def compare_models(
    before: nn.Module,
    after: nn.Module,
    input_size: Sequence[int] = (1, 3, 224, 224),
    *,
    after_size: Sequence[int] | None = None,
) -> Comparison:
    """Show what an operation changed: layers, parameters, mult-adds and output shapes.

    Both networks run once on zeros, in evaluation mode, and nothing of them is changed. A
    forward that fails is told in place of the output.

    Args:
        before: a copy made before the operation, `copy.deepcopy(model)`.
        after: the network now.
        input_size: shape of a batch `(N, C, H, W)`.
        after_size: the same for `after`, where the operation changed what it takes.

    Returns:
        A comparison that a notebook shows as two columns of blocks and print() as text.

    Raises:
        ValueError: if a network has lazy layers, which one batch would create.

    Example:
        >>> old = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 9))
        >>> new = nn.Sequential(old[0], nn.ReLU(), nn.Linear(8, 2))
        >>> print(compare_models(old, new, (1, 4)))
                    before   after
        parameters     121      58
         trainable     121      58
         mult-adds     121      58
            output  (1, 9)  (1, 2)
          0  Linear  40 parameters  (1, 8)
          1  ReLU  (1, 8)
        - 2  Linear(in_features=8, out_features=9, bias=True)  81 parameters  (1, 9)
        + 2  Linear(in_features=8, out_features=2, bias=True)  18 parameters  (1, 2)
    """
    sides = measure(before, input_size), measure(after, after_size or input_size)
    return Comparison(*sides, tuple(rows(*sides)))


def _lines(row: Row) -> Iterator[str]:
    if row.mark == "same":
        yield f"  {_words(_short(row.after))}{''.join(f'  [{d}]' for d in _differences(row))}"
        return
    if row.before:
        yield f"- {_words(row.before)}"
    if row.after:
        yield f"+ {_words(row.after)}"


def _differences(row: Row) -> Iterator[str]:
    """Tell what is different about a block whose layers print the same."""
    if row.before.path != row.after.path:
        yield f"was {row.before.path}"
    if row.after.shape and row.before.shape != row.after.shape:
        yield f"was {row.before.shape or 'not called'}"
    yield from (note for note in row.note.split(", ") if note not in ("", "renumbered"))


def _short(block: Block) -> Block:
    """Leave out the settings of a layer that stayed as it was."""
    return replace(block, text=block.text.partition("(")[0])


def _words(block: Block) -> str:
    parameters = f"{block.parameters:,} parameters" if block.parameters else ""
    return "  ".join(filter(None, [block.path, block.text, parameters, block.shape]))


def _line(cells: Sequence[str], tag: str = "td") -> str:
    style = f'style="{CELL}"'
    return f"<tr>{''.join(f'<{tag} {style}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _picture(row: Row) -> str:
    blocks, note = (row.before, row.after), row.mark
    if row.mark == "same":
        blocks = [_short(block) for block in blocks]
        resized = row.after.shape and row.before.shape != row.after.shape
        note = ", ".join(filter(None, [row.note, "other output" if resized else ""]))
    cells = "".join(_drawn(block, row.mark) for block in blocks)
    return f'<tr><td style="{CELL}">{note}</td>{cells}</tr>'


def _drawn(block: Block | None, mark: str) -> str:
    if block is None:
        return f'<td style="{CELL}"></td>'
    path, _, about = _words(block).partition("  ")
    about = escape(about.replace("  ", " · "))
    border = f"border: {EDGES[mark]}"
    return f'<td style="{CELL}; {border}"><b>{escape(path)}</b><br><small>{about}</small></td>'
