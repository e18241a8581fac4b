"""The documents that claims are quoted from, and how each was read."""

from __future__ import annotations

from collections.abc import Callable

from ..claim import Source


def _document(name: str, read: str = "") -> Callable[[str], Source]:
    return lambda place: Source(name, place, read)


V2 = _document("DeepSeek-V2 report (arXiv 2405.04434)")
V3 = _document("DeepSeek-V3 report, first version (arXiv 2412.19437v1)")
MOE = _document("DeepSeekMoE (arXiv 2401.06066v1)")
R1 = _document("DeepSeek-R1 report of January 2025")
R1_SECOND = _document("DeepSeek-R1, second version of the report (2026) and Nature", "in a transcription")
MATH = _document("DeepSeekMath (arXiv 2402.03300)", "in a text copy")
LOSS_FREE = _document("Auxiliary-Loss-Free Load Balancing (arXiv 2408.15664)", "in a text copy")
INSIGHTS = _document("Insights into DeepSeek-V3, ISCA 2025 (arXiv 2505.09343)", "in a transcription")
PARALLEL_HEADS = _document("Gloeckle et al., multi-token prediction (arXiv 2404.19737)", "in a transcription")
FLASH_MLA = _document("FlashMLA repository, commit 9241ae3")
DEEP_GEMM = _document("DeepGEMM repository, commit 54e2261")
DEEP_EP = _document("DeepEP repository, commit dd758ca")
EPLB = _document("EPLB repository, commit d52c72d")
PROFILES = _document("profile-data repository, commit 4496024")
OPEN_INFRA = _document("open-infra-index repository, commit 56d8685")
ARTICLE = _document("the popular article that this suite set out from", "no primary source of DeepSeek's says this")
