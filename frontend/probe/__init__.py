"""What a back-end offers, and where it is odd: asked of a stranger without doing it any harm."""

from frontend.probe.asking import NoAnswer
from frontend.probe.difference import Difference, NotAReport, differences
from frontend.probe.interview import probe
from frontend.probe.report import Quirk, Report

__all__ = ["Difference", "NoAnswer", "NotAReport", "Quirk", "Report", "differences", "probe"]
