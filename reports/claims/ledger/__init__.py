"""All claims, by study. To add one, add an entry; the page, the verdict and the tests need no other edit."""

from __future__ import annotations

from ..claim import Claim
from . import attention, clusters, experts, learning, precision, prediction, systems

PARTS = (attention, experts, precision, prediction, learning, systems, clusters)
LEDGER: tuple[Claim, ...] = tuple(claim for part in PARTS for claim in part.CLAIMS)
