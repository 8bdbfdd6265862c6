"""Known failures of torch inside second derivatives, said in sentences that tell the fix."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

# What the exception's text contains, in lower case, and what to say. The first match counts.
_EXPLANATIONS = (
    (
        ("checkpoint",),
        "The model uses activation checkpointing, which runs layers again outside of the substituted parameters; switch it off "
        "before making the objective (memory_budget already decides what is kept).",
    ),
    (
        ("support double backward",),
        "The model contains compiled code, which has no second derivative; pass the model before torch.compile.",
    ),
    (
        ("_scaled_dot_product", "flash_attn", "flex_attention"),
        "The model calls an attention kernel that has no second derivative; choose the plain one when it is built, for instance "
        "attn_implementation='eager'.",
    ),
    (
        ("_cudnn_rnn",),
        "A recurrent layer ran under cuDNN, which has no second derivative; use torch.nn's own recurrent layers, for which it is "
        "switched off here.",
    ),
    (
        ("derivative for", "not implemented"),
        "The model contains an operation whose gradient torch cannot differentiate again; replace it by one that has a second "
        "derivative.",
    ),
)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raise known failures again as a RuntimeError with the reason and the fix in front."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        text = str(error).lower()
        for marks, sentence in _EXPLANATIONS:
            if any(mark in text for mark in marks) and not text.startswith("the model"):
                raise RuntimeError(f"{sentence} (torch said: {str(error).strip().splitlines()[0]})") from error
        raise
