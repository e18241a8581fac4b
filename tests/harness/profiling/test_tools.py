"""The tools apart from a process: counted work, memory over time, Python's own functions, and a fake Nsight Compute."""

from __future__ import annotations

import cProfile
import json
import stat
import time
from types import SimpleNamespace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import _get_current_dispatch_mode

from harness import memory
from harness.options import Options
from harness.profiling import counters, host, tracer
from harness.profiling import memory as memory_tool
from harness.profiling import ncu as ncu_tool
from harness.profiling.memory import Allocation, allocations, history
from harness.profiling.subject import CALL, Subject, Unprofiled
from harness.profiling.traffic import Traffic


def worked(call):
    with Traffic() as seen:
        call()
    return dict(seen.work)


def test_flops_and_bytes_of_operators():
    a, b, c = torch.randn(8, 16), torch.randn(16, 4), torch.randn(8, 4)
    found = worked(lambda: (a @ b).add(c))
    assert found["aten::mm"].flops == 2 * 8 * 16 * 4
    assert found["aten::mm"].bytes == 4 * (8 * 16 + 16 * 4 + 8 * 4)
    assert found["aten::add"].flops is None and found["aten::add"].bytes == 4 * 3 * 8 * 4


def test_bytes_that_do_not_move_are_not_counted():
    a = torch.randn(8, 16)
    row = torch.randn(16)
    assert worked(lambda: a.t())["aten::t"].bytes == 0
    assert worked(lambda: torch.empty(8, 16).copy_(a))["aten::copy_"].bytes == 2 * 4 * 8 * 16
    assert worked(lambda: a + row.expand(8, 16))["aten::add"].bytes == 4 * (2 * 8 * 16 + 16)
    assert worked(lambda: a[torch.tensor([1, 2])])["aten::index"].bytes is None


def test_attention_is_known_without_a_mask_only():
    q = torch.randn(1, 2, 8, 16)
    name = "aten::_scaled_dot_product_flash_attention_for_cpu"
    attend = torch.nn.functional.scaled_dot_product_attention
    assert worked(lambda: attend(q, q, q))[name].flops == 4 * 2 * 8 * 8 * 16
    assert worked(lambda: attend(q, q, q, is_causal=True))[name].flops is None


class Product(Subject):
    """A product that notes whether each of its calls was counted."""

    def __init__(self):
        super().__init__("cpu", None)
        self.matrix, self.counted = torch.randn(16, 16), []

    def set_up(self):
        pass

    def first(self):
        self.call()

    def between(self):
        pass

    def call(self):
        self.counted.append(_get_current_dispatch_mode() is not None)
        return self.matrix @ self.matrix


def test_work_is_counted_last_for_torch_compile_does_not_compile_again_what_was_counted(tmp_path):
    subject = Product()
    found = tracer.run(subject, tmp_path, "a", {})
    assert subject.counted[-1] and not any(subject.counted[:-1]) and found["calls"] >= 1
    row = next(row for row in found["tables"]["operators"] if row["name"] == "aten::mm")
    assert row["flops"] == 2 * 16**3 and (tmp_path / "a.trace.json.gz").stat().st_size > 0


def test_calls_are_as_many_as_fit_in_the_time():
    subject = Product()
    subject.between = lambda: time.sleep(0.02)
    assert 1 <= subject.affordable(10, 0.05) <= 2 and subject.affordable(3, 60.0) == 3
    assert subject.affordable(10, 0.0) == 1


def test_the_peak_is_of_the_call_and_names_what_held_it():
    found = history(
        [
            Allocation(1, 10, 500, "aten::cat", "set up"),
            Allocation(2, 11, 900, "aten::mm", "first call"),
            Allocation(3, 11, -900, "aten::mm", "first call"),
            Allocation(4, 20, 100, "aten::mm", "call"),
            Allocation(5, 21, 200, "aten::mm", "call"),
            Allocation(6, 20, -100, "aten::mm", "call"),
            Allocation(7, 20, 50, "aten::add", "call"),
            Allocation(8, 21, -200, "aten::mm", "call"),
        ],
        "call",
    )
    assert (found.before, found.peak, found.kept) == (500, 800, 550)
    assert found.points[1] == (2, 1400)
    assert [(row["operator"], row["phase"], row["bytes"], row["count"]) for row in found.holders] == [
        ("aten::cat", "set up", 500, 1),
        ("aten::mm", "call", 300, 2),
    ]
    assert {row["operator"]: row["bytes"] for row in found.allocated} == {"aten::mm": 300, "aten::add": 50}


def test_memory_is_what_the_harness_counts_and_has_its_operator():
    a = torch.randn(64, 64)

    def call():
        return (a @ a).softmax(-1) + torch.zeros(64, 64)

    with (
        profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen,
        record_function(CALL),
    ):
        result = call()
    found = history(allocations(seen.profiler.kineto_results.experimental_event_tree(), "cpu"), "call")
    _, usage = memory.measure(call, "cpu")
    assert found.peak == usage.peak and result is not None
    assert {row["operator"] for row in found.allocated} == {"aten::mm", "aten::_softmax", "aten::zeros", "aten::add"}
    assert next(allocations(seen.profiler.kineto_results.experimental_event_tree(), "cuda"), None) is None


def test_functions_are_told_with_their_share():
    def slow():
        return sum(range(1000))

    profiler = cProfile.Profile()
    for _ in range(2):
        profiler.enable()
        slow()
        profiler.disable()
    found = host.tables(profiler, 2, 5.0)
    names = {row["name"].split()[-1]: row for row in found["tables"]["functions"]}
    assert names["slow"]["calls"] == 1 and not names["slow"]["built_in"]
    assert sum(row["share"] for row in found["tables"]["functions"]) == pytest.approx(1)
    assert 0 < found["figures"]["python_share"] < 1 and found["figures"]["submit_ns"] == 5.0
    assert not any("disable" in name for name in names)


@pytest.fixture
def ncu(tmp_path, monkeypatch):
    """A command `ncu` that answers as `script` says: $report, $answer and $csv are files."""

    def install(run, imported=""):
        path = tmp_path / "bin" / "ncu"
        path.parent.mkdir(exist_ok=True)
        (tmp_path / "raw.csv").write_text(imported)
        body = f"""#!/bin/bash
if [ "$1" = --import ]; then cat {tmp_path}/raw.csv; exit 0; fi
if [ "$1" = --query-metrics ]; then cat {tmp_path}/known 2>/dev/null; exit 0; fi
for word in "$@"; do case $word in --export=*) report=${{word#--export=}};; esac; done
answer="${{@: -1}}"
{run}
"""
        path.write_text(body)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    return install


ANSWER = json.dumps(
    {"case": "case", "contender": "a/b", "model": {"flops": 8.0, "bytes": 1000.0}, "source": {"file": "a.py"}}
)
FINE = f"touch $report; echo '{ANSWER}' > $answer"
METRICS = ["Kernel Name", *[alternatives[0][0] for alternatives in list(counters.COUNTERS.values())[:4]]]
MARK = ["at::spin_kernel(long)", "1", "1", "1", "1"]


def page(*kernels):
    lines = [METRICS, ["", "nsecond", "byte", "byte", "byte"], *kernels]
    return "==PROF== Connected\n" + "\n".join(",".join(f'"{cell}"' for cell in line) for line in lines)


def counted(tmp_path, seconds=20.0):
    return ncu_tool.run(Options(str(tmp_path)), "case", "a/b", tmp_path, "a--b-ncu", seconds)


def test_counters_stand_beside_the_model_of_bytes(tmp_path, ncu):
    ncu(FINE, page(MARK, ["gemm, one", "2,000", "600", "200", "5000"], ["copy", "500", "300", "200", "n/a"]))
    found = counted(tmp_path)
    rows = found["found"]["tables"]["counters"]
    assert [row["name"] for row in rows] == ["gemm, one", "copy"] and rows[0]["device_ns"] == 2000
    assert rows[1]["l2_bytes"] is None and rows[0]["sm_percent"] is None
    figures = found["found"]["figures"]
    assert figures["dram_over_model"] == pytest.approx(1.3) and "l2_bytes" not in figures
    assert len(found["notes"]) == 1 and "1.30 times" in found["notes"][0]
    assert found["found"]["files"] == {"report": "a--b-ncu.ncu-rep"}


def test_a_model_within_a_tenth_is_not_called_wrong():
    assert ncu_tool.wrong_model({"dram_over_model": 1.09}) == []
    assert len(ncu_tool.wrong_model({"dram_over_model": 0.8})) == 1
    assert ncu_tool.wrong_model({}) == []


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo '==ERROR== ERR_NVGPUCTRPERM - The user does not have permission'; exit 1", "NVreg_RestrictProfiling"),
        ("echo '==ERROR== Failed to find metric x' >&2; exit 1", "it said: Failed to find metric x"),
        ("exit 3", "it said: nothing"),
        (f"echo '{json.dumps({'status': 'oom', 'reason': 'no memory'})}' > $answer", "no memory"),
        ("sleep 30", "more than 1 s"),
        (FINE, "saw no kernel"),
    ],
)
def test_why_there_are_no_counters_is_told(tmp_path, ncu, script, said):
    ncu(script)
    with pytest.raises(Unprofiled, match=said):
        counted(tmp_path, seconds=1.0 if "sleep" in script else 20.0)


def test_without_ncu_or_gpu_the_reason_and_what_still_works(tmp_path, monkeypatch):
    monkeypatch.setattr(counters, "find_ncu", lambda: None)
    for device in ("cpu", "cuda"):
        said = counters.unavailable(device)
        assert said is not None and "TOOL=torch shows time by kernel" in said
    monkeypatch.setattr(counters, "find_ncu", lambda: "/opt/ncu")
    assert counters.unavailable("cuda") is None


def test_memory_tables_of_nothing():
    found = memory_tool.history([], "call")
    assert found.peak == 0 and found.holders == [] and found.points == []
    assert SimpleNamespace(**vars(found)).kept == 0
