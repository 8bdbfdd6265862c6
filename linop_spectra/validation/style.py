"""Colours of the experiments' pictures: the palette of the figures."""

from ..plots.style import BULK, OUTLIER, TEXT, UNRESOLVED

THEORY, MEASURED, SECOND, MUTED = TEXT, BULK, OUTLIER, UNRESOLVED
