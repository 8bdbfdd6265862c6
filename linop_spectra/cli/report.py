"""``linop-spectra report``: everything about one objective or matrix on one page, and its numbers as JSON."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from .. import __version__
from .._progress import Progress, ProgressBar
from ..results import write_atomically
from .errors import INTERRUPTED, CommandError
from .output import cannot_write, prepare_folder, versions, write_json
from .report_about import again_section, check_section, model_section, plan_section
from .report_classes import MOST_CLASSES, classes_section
from .report_losses import CRITIQUE_PRODUCTS, critique_section, landscape_section
from .report_page import Section, Text, render
from .report_spectra import blocks_section, metrics_section, spectra_section
from .report_work import Extent, Work
from .spectrum import show_progress
from .target import load_target

Compute = Callable[[Work, Section, Progress], None]


def report_command(options: argparse.Namespace) -> int:
    """Run the subcommand; returns the exit status."""
    target = load_target(options.target, options.operator)
    folder = prepare_folder(options.out)
    work = Work(target, Extent.of(options.steps, options.quick), options.seed)
    sections, interrupted = measure(work, show_progress(options))
    if not any(section.measured for section in sections):
        if interrupted:
            raise KeyboardInterrupt
        assert work.failure is not None
        raise CommandError(work.sentence(work.failure)) from work.failure
    again = Section("again", "How to make it again")
    again_section(work, again, options.argv, sections)
    sections.append(again)
    status = "interrupted" if interrupted else "complete"
    about = {
        "target": options.target, "matrix": target.matrix, "order": work.order, "status": status, "seed": options.seed,
        "command": again.data["command"], "versions": versions(),
    }  # fmt: skip
    made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    subtitle = f"Made by linop-spectra {__version__} on {made}{', interrupted before it was complete' if interrupted else ''}"
    page = render(f"Curvature report: {target.name}" if target.matrix else f"Spectral report: {target.name}", subtitle, sections)
    path = folder / "report.json"
    try:
        write_json(path, {**about, "sections": {section.key: section.to_json() for section in sections}})
        path = folder / "report.html"
        write_atomically(path, lambda stream: stream.write(page.encode()))
    except OSError as error:
        raise cannot_write(path, error) from error
    if not options.quiet:
        _print(work, sections, folder)
    for alarm in (part.text for section in sections for part in section.parts if isinstance(part, Text) and part.kind == "alarm"):
        print(f"linop-spectra: warning: {alarm}", file=sys.stderr)
    if interrupted:
        print(f"linop-spectra: Interrupted; the sections done until then are in {str(folder)!r}, and the page says so.", file=sys.stderr)
        return INTERRUPTED
    return 0


def planned(work: Work) -> list[tuple[Section, Compute, int, bool]]:
    """Sections in order: what computes each, about how many products it takes, and whether it holds measurements."""
    extent, n, model = work.extent, work.order, work.objective is not None
    probes, steps, more = work.probes, min(extent.steps, n), work.more_steps
    follows = model and work.target.matrix == "hessian"
    ggn = probes * more * follows
    layers = len(work.objective.blocks) // 2 + 1 if work.objective is not None else 0
    blocks = layers * probes * more if extent.blocks and layers <= extent.most_blocks else 1
    classes = _class_weight(work)
    losses = 2 * extent.line_points + work.plane_points**2 * extent.plane
    name = {"hessian": "Hessian", "ggn": "Gauss-Newton matrix"}.get(work.target.matrix or "", "matrix")
    found: list[tuple[Section, Compute, int, bool]] = [
        (Section("model", "Model and data" if model else "Matrix"), model_section, 1, False),
        (Section("plan", "Plan and cost"), plan_section, 3, False),
        (Section("check", "Check of the operator"), check_section, 5, False),
        (Section("spectra", f"Spectrum of the {name}"), spectra_section,
         (probes + model) * steps + ggn + 16 * len(extent.extras) + 15 * model, True),
        (Section("metrics", "Metrics"), metrics_section, 1, True),
        (Section("blocks", "Layers and blocks"), blocks_section, blocks, True),
        (Section("classes", "Class structure"), classes_section, classes, True),
        (Section("critique", "What the diagonal loses"), critique_section, work.diagonal_products + CRITIQUE_PRODUCTS, True),
        (Section("landscape", "Loss along the leading eigenvectors"), landscape_section, losses // 3, True),
    ]  # fmt: skip
    return [one for one in found if model or one[0].key not in ("blocks", "classes", "landscape")]


def _class_weight(work: Work) -> int:
    """About how many products the class structure takes: H - G, B2, and a fifth of one for each pair of classes."""
    objective = work.objective
    if objective is None or not work.extent.classes:
        return 1
    try:
        classes = objective.class_structure().num_classes
    except (TypeError, ValueError):
        return 1
    return 2 * work.probes * work.more_steps + (classes**2 + classes) // 5 * (classes <= MOST_CLASSES) + 10


def measure(work: Work, progress: Progress) -> tuple[list[Section], bool]:
    """Compute all sections in turn; a section that fails says why, and Ctrl-C ends the report with those that are done.

    Returns
    -------
    sections : list of Section
        In order.
    interrupted : bool
        Whether Ctrl-C came.
    """
    plan = planned(work)
    sections: list[Section] = []
    total = sum(weight for _, _, weight, _ in plan)
    with _interrupts(work), ProgressBar(progress, total, "report", unit="product") as bar:
        meter = _Meter(bar, work)
        for section, compute, weight, measures in plan:
            began, worked = time.perf_counter(), time.process_time()
            try:
                work.go_on()
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("default")
                    for hidden in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
                        warnings.simplefilter("ignore", hidden)
                    compute(work, section, meter.part(weight))
                    work.go_on()  # after a run that ended early because of it: what rests on that is not what the page says
                for message in dict.fromkeys(" ".join(str(one.message).split()) for one in caught):
                    section.text(message, "note")
                section.measured = measures
            except KeyboardInterrupt:
                work.interrupted = True
                section = Section(section.key, section.title)
                section.leave_out("this section", "The report was interrupted before it was complete.")
            except Exception as error:
                work.failure = work.failure or error
                section.leave_out("the rest of this section" if section.parts else "this section", work.sentence(error))
            section.seconds, section.processor_seconds = time.perf_counter() - began, time.process_time() - worked
            sections.append(section)
            meter.finish()
    return sections, work.interrupted


class _Meter:
    """One bar for all sections; each has its share of the products that are expected."""

    def __init__(self, bar: ProgressBar, work: Work) -> None:
        self._bar, self._work, self._reached, self._end = bar, work, 0, 0

    def part(self, weight: int) -> Callable[[int, int], None]:
        """A callback for the next section, whose own steps are scaled to its share."""
        first = self._end
        self._end = first + weight

        def advance(done: int, total: int) -> None:
            self._work.go_on()
            self._to(first + weight * min(done, total) // max(total, 1))

        return advance

    def finish(self) -> None:
        """Go to the end of the section."""
        self._to(self._end)

    def _to(self, place: int) -> None:
        if place > self._reached:
            self._bar.advance(place - self._reached)
            self._reached = place


@contextlib.contextmanager
def _interrupts(work: Work) -> Iterator[None]:
    """Notice every Ctrl-C, those too that a computation answers with a partial result."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def notice(number: int, frame: FrameType | None) -> Any:
        work.interrupted = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, notice)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.default_int_handler)


def _print(work: Work, sections: list[Section], folder: Any) -> None:
    print(f"Report on {work.target.name}\n")
    width = max(len(section.title) for section in sections)
    for section in sections[:-1]:
        state = "" if section.measured or not section.omitted else "  left out"
        missing = f"  without {', '.join(section.omitted)}" if section.omitted and not state else ""
        print(f"{section.title:{width}s}  {section.num_matvecs:7,d} products  {section.seconds:7.1f} s{state}{missing}")
    print(f"\nWritten to {folder / 'report.html'} and {folder / 'report.json'}.")
