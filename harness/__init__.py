"""Measures anything it is handed, and knows no attention, expert or number format.

This is the surface that implementations and benches import; everything else is internal.
"""

from .case import Workload
from .contract import Call, Cost, Course, Operation, Prepared, Trial
from .metrics import Metric
from .registry import implementation, operation

__all__ = [
    "Call",
    "Cost",
    "Course",
    "Metric",
    "Operation",
    "Prepared",
    "Trial",
    "Workload",
    "implementation",
    "operation",
]
