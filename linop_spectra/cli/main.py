"""Entry point of the command: parse, run, and turn every failure into a sentence and an exit status."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from .. import __version__
from .arguments import build_parser
from .compare import compare_command
from .demo import demo_command
from .eigs import eigs_command
from .errors import BAD_INPUT, INTERRUPTED, CommandError, explain_failure, is_ours
from .evolve import evolve_command
from .landscape import landscape_command
from .report import report_command
from .spectrum import spectrum_command
from .theory import theory_command

_COMMANDS = {
    "demo": demo_command, "spectrum": spectrum_command, "eigs": eigs_command, "report": report_command, "landscape": landscape_command,
    "compare": compare_command, "evolve": evolve_command, "theory": theory_command,
}  # fmt: skip


def run() -> None:
    """Run the command on this process's arguments and exit."""
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the name of the program; this process's by default.

    Returns
    -------
    int
        Exit status: 0 done, 1 an experiment disagrees with theory, 2 bad input, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    show_traceback = "--traceback" in arguments
    try:
        with _warnings_in_one_line():
            options = build_parser(__version__, _COMMANDS).parse_args(arguments)
            options.argv = arguments
            return options.run(options)
    except CommandError as error:
        failure: BaseException = error.__cause__ or error
        sentence, status = str(error), error.status
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BAD_INPUT
    except KeyboardInterrupt as error:
        failure, sentence, status = error, "Interrupted before there was a result; nothing was written.", INTERRUPTED
    except Exception as error:
        failure, status = error, BAD_INPUT
        sentence = str(error) if is_ours(error) else f"The command failed: {explain_failure(error)}."
    if show_traceback:
        traceback.print_exception(failure)
    print(f"linop-spectra: {sentence}", file=sys.stderr)
    return status


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Show each warning once, as a line without the place in the code that raised it."""

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None, line: Any = None
    ) -> None:
        print(f"linop-spectra: warning: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        if not sys.warnoptions:  # what Python shows by default, whatever filters the caller has
            warnings.resetwarnings()
            for hidden in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
                warnings.simplefilter("ignore", hidden)
        warnings.showwarning = show
        yield
