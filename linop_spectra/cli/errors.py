"""What the command says when it cannot go on: one sentence, and an exit status."""

from __future__ import annotations

import pathlib
import traceback

BAD_INPUT = 2
INTERRUPTED = 130

_PACKAGE = pathlib.Path(__file__).resolve().parent.parent


class CommandError(Exception):
    """A sentence for the user, and the exit status that goes with it."""

    def __init__(self, sentence: str, status: int = BAD_INPUT) -> None:
        super().__init__(sentence)
        self.status = status


def is_ours(error: BaseException) -> bool:
    """Whether the library raised `error` itself, so that its text is already a sentence for the user."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and pathlib.Path(frames[-1].filename).resolve().is_relative_to(_PACKAGE)


def explain_failure(error: BaseException, preferred: str | None = None) -> str:
    """Type and text of an error, and the line of the user's code where it came from.

    Parameters
    ----------
    error : BaseException
        What was raised.
    preferred : str, optional
        File to look for first; otherwise the innermost line outside this package counts.

    Returns
    -------
    str
        A clause such as ``line 7 of model.py, "torch.load('x.pt')", raised FileNotFoundError: ...``.
    """
    text = " ".join(str(error).split()).rstrip(".")
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"line {error.lineno} of {error.filename} raised {type(error).__name__}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if not pathlib.Path(frame.filename).resolve().is_relative_to(_PACKAGE)]
    own = [frame for frame in outside if preferred is not None and frame.filename == preferred]
    for candidates in (own, outside):
        if candidates:
            frame = candidates[-1]
            code = f', "{frame.line}",' if frame.line else ""
            return f"line {frame.lineno} of {frame.filename}{code} raised {what}"
    return f"it raised {what}"
