"""Programs on a multiprocessor, against figures of NVIDIA's occupancy calculator."""

from __future__ import annotations

import pytest

from harness.kernels.occupancy import occupancy


@pytest.mark.parametrize(
    ("target", "threads", "registers", "shared", "programs", "share", "bound"),
    [
        ("sm_90", 128, 32, 0, 16, 1.0, "warps"),
        ("sm_90", 128, 255, 0, 2, 0.125, "registers"),
        ("sm_90", 256, 255, 0, 1, 0.125, "registers"),
        ("sm_90", 512, 128, 0, 1, 0.25, "registers"),
        ("sm_90", 128, 33, 0, 12, 0.75, "registers"),  # 33 are 40: 1280 a warp, 12 warps a scheduler
        ("sm_90", 128, 32, 113 * 1024, 2, 0.125, "shared memory"),
        ("sm_90", 128, 32, 113 * 1024 + 1, 1, 0.0625, "shared memory"),
        ("sm_90a", 32, 16, 0, 32, 0.5, "programs"),
        ("sm_80", 128, 32, 82 * 1024, 1, 0.0625, "shared memory"),
        ("sm_89", 128, 40, 0, 12, 1.0, "warps"),
        ("sm_90", 96, 128, 0, 5, 0.234375, "registers"),
    ],
)
def test_programs_and_what_bounds_them(target, threads, registers, shared, programs, share, bound):
    found = occupancy(target, threads, registers, shared)
    assert (found.programs, found.share, found.bound) == (programs, share, bound)


def test_an_unknown_target_is_not_guessed_and_what_fits_nowhere_has_no_program():
    assert occupancy("sm_37", 128, 32, 0) is None
    assert occupancy("sm_90", 1024, 255, 0).programs == 0
