"""What follows from a trace, on traces written down by hand: own times, kernels, gaps, and what is no call's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness.contract import Cost
from harness.profiling import tracer
from harness.profiling.spans import OUTSIDE, Span, Trace, merged
from harness.profiling.traffic import Work

US = 1_000


def span(kind, name, begin, end, **more):
    return Span(name, kind, begin * US, end * US, **more)


def call(begin, end):
    return span("range", "call", begin, end)


def rows(found):
    return {row.name: row for row in found}


def test_own_time_leaves_out_what_is_called_and_a_call_keeps_the_rest():
    trace = Trace(
        [
            span("operator", "before", 0, 5),
            call(10, 110),
            span("operator", "linear", 20, 80, identity=1),
            span("operator", "mm", 30, 70, identity=2),
            span("operator", "mm", 90, 100, identity=3),
            span("operator", "mm", 92, 96, identity=4),  # an overload that calls another
            span("operator", "elsewhere", 15, 95, lane=7),
            span("operator", "after", 120, 130),
        ],
        "call",
    )
    found = rows(trace.operators())
    assert {name: row.own_ns // US for name, row in found.items()} == {
        "linear": 20,
        "mm": 50,
        "elsewhere": 80,
        OUTSIDE: 30,
    }
    assert found["mm"].count == 2 and found["linear"].count == 1
    assert trace.phases == {"call": 100 * US}


def gpu_trace():
    """Two kernels that follow at once, one that the host was late with, one that waited for itself; a second stream."""
    return Trace(
        [
            call(0, 100),
            span("operator", "mm", 1, 5, identity=9),
            span("launch", "cudaLaunchKernel", 2, 3, correlation=1),
            span("launch", "cudaLaunchKernel", 4, 5, correlation=2),
            span("launch", "cuLaunchKernelEx", 38, 40, correlation=3),
            span("launch", "cuLaunchKernelEx", 41, 42, correlation=4),
            span("kernel", "gemm", 10, 20, identity=9, correlation=1),
            span("kernel", "gemm", 20, 30, identity=9, correlation=2),
            span("kernel", "mine", 45, 60, correlation=3),
            span("kernel", "copy", 50, 65, lane=2, correlation=5),
            span("kernel", "mine", 70, 80, correlation=4),
            span("kernel", "flush", 150, 190, correlation=6),
        ],
        "call",
    )


def test_gaps_are_blamed_on_the_host_only_where_it_was_late():
    found = gpu_trace().gaps()
    assert [(gap.begin // US, gap.length // US, gap.after, gap.before, gap.host) for gap in found] == [
        (30, 15, "gemm", "mine", True),
        (65, 5, "copy", "mine", False),
    ]


def test_the_device_is_busy_once_where_streams_overlap():
    found = {name: value / US for name, value in gpu_trace().device().items()}
    assert found == {"device_window_ns": 70, "device_busy_ns": 50, "waits_for_host_ns": 15, "other_gaps_ns": 5}
    assert Trace([call(0, 5)], "call").device() == {}


def test_kernels_belong_to_the_operator_that_launched_them():
    trace = gpu_trace()
    found = rows(trace.operators())
    assert found["mm"].device_ns == 20 * US and found["mm"].kernels == {"gemm": 2}
    assert found[OUTSIDE].device_ns == 40 * US and found[OUTSIDE].launches == 3
    kernels = rows(trace.kernels())
    assert kernels["mine"].count == 2 and "flush" not in kernels


def test_equal_gaps_are_told_together():
    gaps = Trace(
        [
            call(0, 20),
            span("kernel", "a", 0, 2),
            span("kernel", "b", 5, 6),
            call(30, 50),
            span("kernel", "a", 30, 32),
            span("kernel", "b", 38, 39),
        ],
        "call",
    ).gaps()
    assert merged(gaps) == [{"after": "a", "before": "b", "host": False, "ns": 9 * US, "count": 2}]


CEILINGS = {"matrix": {"bfloat16": 1e15}, "read_bandwidth": 1e12}


def subject(flops, moved):
    return SimpleNamespace(device="cuda", cost=Cost(flops, moved, 0.0, "bfloat16"))


def test_rates_are_of_device_time_and_name_the_nearer_ceiling():
    work = {"mm": Work(1, flops=2e9, bytes=10e6)}
    found = tracer.tables(gpu_trace(), work, subject(4e9, 20e6), CEILINGS)
    first = next(row for row in found["tables"]["operators"] if row["name"] == "mm")
    assert first["device_ns"] == 20 * US and first["share"] == pytest.approx(20 / 60)
    assert first["flop_rate"] == pytest.approx(1e14) and first["byte_rate"] == pytest.approx(5e11)
    assert first["ceiling"] == "memory" and first["ceiling_share"] == pytest.approx(0.5)
    assert found["figures"]["flop_rate"] == pytest.approx(4e9 / 50e-6)
    assert [row["name"] for row in found["tables"]["kernels"]] == ["mine", "gemm", "copy"]
    assert "flop_rate" not in found["tables"]["kernels"][0]


def test_what_the_counting_call_did_otherwise_has_no_rate():
    work = {"mm": Work(3, flops=2e9, bytes=10e6)}
    found = tracer.tables(gpu_trace(), work, subject(4e9, 20e6), CEILINGS)
    assert all("flop_rate" not in row for row in found["tables"]["operators"])


def test_the_only_kernel_of_a_call_has_the_contracts_rate():
    trace = Trace([call(0, 100), span("kernel", "mine", 10, 60)], "call")
    (row,) = tracer.tables(trace, {}, subject(4e9, 25e6), CEILINGS)["tables"]["kernels"]
    assert row["flop_rate"] == pytest.approx(8e13) and row["ceiling"] == "memory"
    assert row["ceiling_share"] == pytest.approx(0.5)


class Event:
    """As torch's profiler hands them over."""

    def __init__(self, name, kind, begin, end, device="CPU", annotation=False, linked=0, correlation=0):
        self.values = (name, kind, begin, end, SimpleNamespace(name=device), annotation, linked, correlation)

    def __getattr__(self, name):
        names = "name activity_type start_ns end_ns device_type is_user_annotation linked_correlation_id correlation_id"
        values = dict(zip(names.split(), self.values, strict=True))
        if name == "activity_type" and values[name] is None:  # an older torch
            raise AttributeError(name)
        return lambda: {**values, "start_thread_id": 1, "device_resource_id": 7}[name]


def test_raw_events_become_spans():
    found = list(
        tracer.spans(
            [
                Event("whalebench: call", "user_annotation", 0, 100, annotation=True),
                Event("whalebench: call", "gpu_user_annotation", 0, 100, device="CUDA", annotation=True),
                Event("Torch-Compiled Region", "user_annotation", 1, 90, annotation=True),
                Event("aten::mm", "cpu_op", 5, 20, correlation=3),
                Event("cudaLaunchKernel", "cuda_runtime", 6, 8, correlation=77, linked=3),
                Event("gemm", "kernel", 30, 60, device="CUDA", correlation=77, linked=3),
                Event("Context Sync", "cuda_sync", 30, 30, device="CUDA"),
                Event("forward", "python_function", 2, 90),
            ]
        )
    )
    assert [(one.kind, one.name) for one in found] == [
        ("range", "whalebench: call"),
        ("operator", "aten::mm"),
        ("launch", "cudaLaunchKernel"),
        ("kernel", "gemm"),
    ]
    older = [Event("aten::mm", None, 5, 20), Event("cuLaunchKernelEx", None, 6, 8), Event("cumsum", None, 9, 9)]
    assert [one.kind for one in tracer.spans(older)] == ["operator", "launch", "operator"]
    assert found[3].identity == found[1].identity == 3 and found[3].correlation == found[2].correlation == 77
