"""The report as data, as an HTML page that needs nothing but itself, and as JSON."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from .output import plain
from .report_template import PAGE, SCRIPT, STYLE

_TALL = 60
"""Rows beyond which a table scrolls in a window of its own on a screen; in print it is whole."""
_LONG = 28
"""Letters from which a cell keeps a width that is easy to read."""
_VERDICTS = "ok", "biased", "meaningless", "unresolved"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the page, and under its name of the JSON.

    Attributes
    ----------
    name : str
        Its key in the JSON.
    columns : tuple of str
        Headings.
    rows : tuple of tuple
        Strings, numbers, booleans and None.
    caption : str
        What it shows.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    caption: str = ""

    def to_json(self) -> dict[str, Any]:
        """Columns and rows; what is not finite is None."""
        return {"columns": list(self.columns), "rows": [[plain(cell) for cell in row] for row in self.rows]}

    def to_html(self) -> str:
        """The table; each cell has its exact value as an attribute, by which it is sorted."""
        kind = "scroll tall" if len(self.rows) > _TALL else "scroll"
        caption = f'<p class="caption">{escape(self.caption)}</p>\n' if self.caption else ""
        numeric = [all(_is_number(row[place]) for row in self.rows if row[place] is not None) for place in range(len(self.columns))]
        heads = "".join(f'<th scope="col">{escape(column)}</th>' for column in self.columns)
        rows = "\n".join(
            f"<tr>{''.join(_cell(cell, right) for cell, right in zip(row, numeric, strict=True))}</tr>" for row in self.rows
        )
        return (
            f'{caption}<div class="{kind}" tabindex="0" role="region" aria-label="{escape(self.caption or self.name)}">\n'
            f'<table class="sortable" id="table-{escape(self.name)}">\n<thead><tr>{heads}</tr></thead>\n'
            f"<tbody>\n{rows}\n</tbody>\n</table>\n</div>"
        )


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure as the bytes of a PNG.

    Attributes
    ----------
    content : bytes
        The PNG.
    description : str
        For those who do not see it.
    caption : str
        Below it.
    """

    content: bytes
    description: str
    caption: str = ""

    def to_html(self) -> str:
        """The figure with its image inline."""
        data = base64.b64encode(self.content).decode("ascii")
        caption = f"<figcaption>{escape(self.caption)}</figcaption>" if self.caption else ""
        return f'<figure><img alt="{escape(self.description)}" src="data:image/png;base64,{data}">{caption}</figure>'


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph: plain, a ``"note"``, ``"absent"`` for what is left out, an ``"alarm"``, or ``"code"``."""

    text: str
    kind: str = ""

    def to_html(self) -> str:
        """The paragraph."""
        if self.kind == "code":
            return f"<pre><code>{escape(self.text)}</code></pre>"
        return f'<p class="{self.kind}">{escape(self.text)}</p>' if self.kind else f"<p>{escape(self.text)}</p>"


Part = Table | Picture | Text


class Section:
    """A part of the report, filled while it is computed.

    Parameters
    ----------
    key : str
        Anchor of the page and key of the JSON.
    title : str
        Heading.

    Attributes
    ----------
    parts : list
        Tables, pictures and paragraphs in order.
    data : dict
        What the JSON holds beside the tables.
    omitted : dict of str to str
        What could not be computed, and why.
    num_matvecs : int
        Products that it took.
    seconds, processor_seconds : float
        Wall-clock time, and time of all processors.
    measured : bool
        Whether it holds measurements and is complete.
    """

    def __init__(self, key: str, title: str) -> None:
        self.key, self.title = key, title
        self.parts: list[Part] = []
        self.data: dict[str, Any] = {}
        self.omitted: dict[str, str] = {}
        self.num_matvecs, self.seconds, self.processor_seconds = 0, 0.0, 0.0
        self.measured = False

    def table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> None:
        """Add a table."""
        self.parts.append(Table(name, tuple(columns), tuple(tuple(row) for row in rows), caption))

    def facts(self, name: str, rows: Iterable[tuple[str, Any]], caption: str = "") -> None:
        """Add a table of names and values."""
        self.table(name, ("quantity", "value"), rows, caption)

    def picture(self, draw: Callable[[], Any], description: str, caption: str = "") -> None:
        """Draw a figure and add it.

        Raises
        ------
        ImportError
            When matplotlib is not installed.
        """
        buffer = io.BytesIO()
        draw().figure.savefig(buffer, format="png")
        self.parts.append(Picture(buffer.getvalue(), description, caption))

    def text(self, text: str, kind: str = "") -> None:
        """Add a paragraph."""
        self.parts.append(Text(text, kind))

    def leave_out(self, what: str, why: str) -> None:
        """Say that something is missing, and why."""
        self.omitted[what] = why
        self.text(f"Left out: {what}. {why}", "absent")

    def to_json(self) -> dict[str, Any]:
        """Tables by name, further data, and what is missing."""
        tables = {part.name: part.to_json() for part in self.parts if isinstance(part, Table)}
        notes = [part.text for part in self.parts if isinstance(part, Text) and part.kind in ("note", "alarm")]
        numbers = {"title": self.title, "num_matvecs": self.num_matvecs, "seconds": self.seconds}
        return plain({**numbers, "tables": tables, "notes": notes, "omitted": self.omitted, **self.data})

    def to_html(self) -> str:
        """The section; neighbouring pictures stand side by side where there is room."""
        lines = [f'<section id="{escape(self.key)}">', f"<h2>{escape(self.title)}</h2>"]
        row: list[str] = []
        for part in self.parts:
            if isinstance(part, Picture):
                row.append(part.to_html())
                continue
            lines += _side_by_side(row)
            row = []
            lines.append(part.to_html())
        lines += _side_by_side(row)
        if self.num_matvecs:
            lines.append(f'<p class="cost">{self.num_matvecs:,} products, {self.seconds:.3g} s</p>')
        return "\n".join([*lines, "</section>"])


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole page.

    Parameters
    ----------
    title, subtitle : str
        Of the page.
    sections : sequence of Section
        In order.

    Returns
    -------
    str
        HTML without a reference to anything outside of it; all text is escaped.
    """
    links = "\n".join(f'<li><a href="#{escape(section.key)}">{escape(section.title)}</a></li>' for section in sections)
    alarms = [part.to_html() for section in sections for part in section.parts if isinstance(part, Text) and part.kind == "alarm"]
    return PAGE.substitute(
        title=escape(title), subtitle=escape(subtitle), style=STYLE, script=SCRIPT, links=links, alarms="\n".join(alarms),
        sections="\n".join(section.to_html() for section in sections),
    )  # fmt: skip


def cell_text(value: Any) -> str:
    """A value as the page shows it.

    Examples
    --------
    >>> [cell_text(x) for x in (1234567, 0.00012345678, None, True, float("inf"), "a")]
    ['1,234,567', '0.00012346', '–', 'yes', '∞', 'a']
    """
    if value is None:
        return "–"
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if math.isnan(value):
            return "–"
        return f"{value:.5g}" if math.isfinite(value) else "∞" if value > 0 else "−∞"
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _cell(value: Any, right: bool) -> str:
    """A cell: numbers, and what is missing among them, to the right."""
    text = cell_text(value)
    if _is_number(value) or value is None:
        exact = repr(plain(value)) if value is not None and math.isfinite(value) else ""
        return f'<td class="{"number" if right or value is not None else "text"}" data-value="{exact}">{escape(text)}</td>'
    shown = f'<span class="verdict-{text}">{text}</span>' if text in _VERDICTS else escape(text)
    kind = "text long" if len(text) > _LONG else "text"
    return f'<td class="{kind}" data-value="{escape(text)}">{shown}</td>'


def _side_by_side(pictures: list[str]) -> list[str]:
    if not pictures:
        return []
    return ['<div class="pictures">', *pictures, "</div>"] if len(pictures) > 1 else pictures
