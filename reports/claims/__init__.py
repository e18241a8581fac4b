"""The claims ledger: published figures as data, joined to what was recorded, each with one verdict and its reasons."""

from .evidence import judge
from .ledger import LEDGER
from .page import line, page

__all__ = ["LEDGER", "judge", "line", "page"]
