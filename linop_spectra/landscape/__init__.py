"""The loss around a point: along lines, over planes, between models, and what random slices of it can show."""

from .directions import Directions, directions
from .evaluation import LandscapeInterrupted
from .interpolation import interpolate
from .line import Line, line
from .plane import Plane, plane
from .slice_law import SliceLaw
from .slices import Slices, slices
from .trajectory import Trajectory, trajectory

__all__ = [
    "Directions",
    "LandscapeInterrupted",
    "Line",
    "Plane",
    "SliceLaw",
    "Slices",
    "Trajectory",
    "directions",
    "interpolate",
    "line",
    "plane",
    "slices",
    "trajectory",
]
