"""How many programs of a kernel fit on a multiprocessor at once, from what the compiler says each takes.

The rules are those of NVIDIA's occupancy calculator: registers go to warps in units of 256, four schedulers have a
quarter of them each, shared memory goes to programs in units of 128 bytes and the system takes 1 KiB of each program
more. Limits are those of the CUDA programming guide's table of technical specifications. Wins over a profiler's figure
by needing no GPU. Loses what a kernel does later: `setmaxnreg` moves registers between warps that are there already,
and a grid smaller than the GPU fills nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

WARP = 32
REGISTERS = 65536
REGISTER_UNIT = 256
SCHEDULERS = 4
SHARED_UNIT = 128
SYSTEM_SHARED = 1024


@dataclass(frozen=True)
class Limits:
    """Of one multiprocessor: warps, programs, bytes of shared memory."""

    warps: int
    programs: int
    shared: int


LIMITS = {
    "sm_80": Limits(64, 32, 167_936),
    "sm_86": Limits(48, 16, 102_400),
    "sm_89": Limits(48, 24, 102_400),
    "sm_90": Limits(64, 32, 233_472),
    "sm_100": Limits(64, 32, 233_472),
}


@dataclass(frozen=True)
class Occupancy:
    """Programs on a multiprocessor, the share of its warps that they are, and what admits no more."""

    programs: int
    share: float
    bound: str


def occupancy(target: str, threads: int, registers: int, shared: int) -> Occupancy | None:
    """Of programs of so many threads, registers a thread and bytes of shared memory; None for an unknown target."""
    limits = LIMITS.get(target.rstrip("abcdefghijklmnopqrstuvwxyz"))
    if limits is None:
        return None
    warps = -(-threads // WARP)
    a_warp = -(-registers * WARP // REGISTER_UNIT) * REGISTER_UNIT
    warps_by_registers = SCHEDULERS * (REGISTERS // SCHEDULERS // max(a_warp, 1))
    taken = -(-shared // SHARED_UNIT) * SHARED_UNIT + SYSTEM_SHARED
    found = {
        "warps": limits.warps // warps,
        "programs": limits.programs,
        "registers": warps_by_registers // warps,
        "shared memory": limits.shared // taken,
    }
    bound = min(found, key=lambda name: found[name])
    return Occupancy(found[bound], found[bound] * warps / limits.warps, bound)
