"""What the machine did in a made-up run: profiles of a case, written by the harness's own writer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.profiling.file import Profile, folder_of, write
from harness.record import RunWriter

MACHINE = {"label": "NVIDIA H200", "device": "cuda"}
LONG = "void cutlass::Kernel2<cutlass_90_tensorop_bf16_s16816gemm_<relu>_128x256_64x3_nn_align8>(Params)"


def profiles(run: Path, case: str) -> None:
    """By torch, with a trace and a gap that waits for the host; of memory, with a timeline, its snapshot lost."""
    source = {"file": "impls/attention/decode/absorbed.py", "digest": "0123456789ab"}
    split = {"name": "split_latent", "device_ns": 60000.0, "share": 0.6, "calls": 1.0}
    time = Profile(
        case,
        "mla/absorbed",
        "torch",
        "2026-03-01T11:00:00+00:00",
        MACHINE,
        source,
        calls=10,
        figures={
            "wall_ns": 130000.0,
            "device_window_ns": 120000.0,
            "device_busy_ns": 100000.0,
            "waits_for_host_ns": 15000.0,
            "other_gaps_ns": 5000.0,
        },
        tables={
            "operators": [{"name": "aten::mm", "own_ns": 9000.0, "device_ns": 40000.0, "calls": 2.0, "launches": 2.0}],
            "kernels": [
                {**split, "byte_rate": 3.1e12, "bytes": 1.86e8, "ceiling": "memory", "ceiling_share": 0.756},
                {"name": LONG, "device_ns": 40000.0, "share": 0.4, "calls": 2.0},
            ],
            "gaps": [{"after": "split_latent", "before": LONG, "host": True, "ns": 15000.0, "count": 10}],
        },
        files={"trace": "mla--absorbed-torch.trace.json.gz"},
    )
    write(time, run)
    (folder_of(run, case) / time.files["trace"]).write_bytes(b"\x1f\x8b made up")
    write(replace(time, tool="host", figures={"submit_ns": 21000.0, "python_share": 0.4}, tables={}, files={}), run)
    memory = Profile(
        case,
        "mha/reference",
        "memory",
        "2026-03-01T11:01:00+00:00",
        {**MACHINE, "label": "NVIDIA H100"},
        {**source, "digest": "ba9876543210"},
        figures={"peak_bytes": 3.0 * 2**20, "held_before_bytes": 1.0 * 2**20, "held_after_bytes": 1.0 * 2**20},
        tables={"holders": [{"operator": "aten::mm", "phase": "call", "bytes": 2**21, "count": 1, "largest": 2**21}]},
        timeline=[[0, 2**20], *([1000 * step, 2**20] for step in range(1, 3900)), [3.95e6, 2**22], [4e6, 2**20]],
        files={"snapshot": "mha--reference-memory.pickle"},
    )
    write(memory, run)


def lanes(writer: RunWriter, case: str) -> None:
    """One GPU whose clock dips once in a thousand readings, one that only tells its temperature, and processors."""
    seconds = [round(0.02 * step, 3) for step in range(1000)]
    clock = [1755.0 if step != 777 else 1230.0 for step in range(1000)]
    first = {"seconds": seconds, "sm_clock_mhz": clock, "power_w": [500.0 + step % 7 for step in range(1000)]}
    host = {"seconds": [0.5, 1.0, 1.5], "others": [0.1, 0.4, None], "switches": [0.0, 12.0, 4.0]}
    writer.lanes(case, {"gpus": [first, {"seconds": [0.0, 1.0], "temperature_c": [41, 41]}], "host": host})
