"""Theory put to the test: experiments whose outcome is known, run through the library's own public parts."""

from .catalogue import experiments
from .experiment import Experiment, Findings, Outcome, Row, conduct

__all__ = ["Experiment", "Findings", "Outcome", "Row", "conduct", "experiments"]
