"""Profiles from the command line, of the toy operations, as a user takes them; and what is said where there is none."""

from __future__ import annotations

import gzip
import json

import pytest

from harness.machine import fingerprint
from harness.metrics import COMMON
from harness.profiling import __main__ as profiling
from harness.profiling.file import Profile, read, read_case, write
from harness.record import Figure, Header, Record, RunWriter

CASE = "toy.product/square/n64"


@pytest.fixture
def profiled(checkout, monkeypatch, capfd):
    """The command in a checkout on a CPU, whose worker is a process as ever; exit status and both streams."""
    monkeypatch.chdir(checkout.folder)
    monkeypatch.setattr(profiling, "end_like_ctrl_c", lambda: None)

    def run(*words):
        code = profiling.main(["--device", "cpu", *words])
        return code, *capfd.readouterr()

    return run


def kept(checkout, contender="plain--transposed", tool="torch", run="profile", case="toy.product--square--n64"):
    return read(checkout.folder / "runs" / run / "profiles" / case / f"{contender}-{tool}.json")


def test_time_by_operator_with_a_trace_of_the_phases(profiled, checkout):
    code, out, err = profiled("--case", CASE)
    assert code == 0, err
    found = kept(checkout)
    row = found.tables["operators"][0]
    assert "aten::mm" in out and found.contender == "plain/transposed" and 1 <= found.calls <= 10
    mm = next(row for row in found.tables["operators"] if row["name"] == "aten::mm")
    assert mm["flops"] == 2 * 64**3 and mm["calls"] == 1 and mm["flop_rate"] > 0 and row["share"] > 0
    assert set(found.phases_ns) == {"set up", "first call", "between calls", "call"}
    assert found.source["file"] == "impls/toy/reference.py" and found.machine["label"]
    trace = checkout.folder / "runs/profile/profiles/toy.product--square--n64" / found.files["trace"]
    names = [event.get("name") for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]]
    assert names.count("whalebench: call") >= found.calls and "whalebench: set up" in names


def test_memory_and_host(profiled, checkout):
    assert profiled("--case", CASE, "--name", "plain/reference", "--tool", "memory")[0] == 0
    memory = kept(checkout, "plain--reference", "memory")
    assert memory.figures["peak_bytes"] == 4 * 64**2 and memory.tables["holders"][0]["operator"] == "aten::mm"
    assert memory.timeline
    assert profiled("--case", CASE, "--name", "plain/reference", "--tool", "host")[0] == 0
    host = kept(checkout, "plain--reference", "host")
    assert any("reference.py" in row["name"] for row in host.tables["functions"])


def test_a_trial_is_profiled_by_steps(profiled, checkout):
    checkout.add("tests/toy_trial")
    for tool in ("torch", "memory", "host"):
        code, _, err = profiled("--case", "descent.walk/slope/s40", "--tool", tool)
        assert code == 0, err
    folder = checkout.folder / "runs" / "profile"
    profiles, problems = read_case(folder, "descent.walk/slope/s40")
    assert len(profiles) == 3 and not problems
    assert all("one step of the trial" in profile.notes[0] for profile in profiles)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--case", "toy.product/square/n65"), "did you mean toy.product/square/n64"),
        (("--case", CASE, "--name", "plain/transpose"), "did you mean plain/transposed"),
        (
            ("--case", CASE, "--name", "plain/compiled"),
            "NAME=plain/compiled cannot run toy.product/square/n64 here: comp",
        ),
        (("--case", CASE, "--tool", "perf"), "TOOL=perf is unknown; did you mean memory?"),
        (("--case", CASE, "--tool", "ncu"), "this is a CPU; TOOL=torch shows"),
        (("--case", CASE, "--run", "monday"), "RUN=monday: there is no such run"),
        (("--below", "0.3"), "there is no run on cpu in runs; make bench makes one"),
        ((), "say which case"),
    ],
)
def test_a_request_that_cannot_be_met_is_a_sentence(profiled, words, said):
    code, out, err = profiled(*words)
    assert code == 2 and err.startswith("error: ") and said in err and not out


FAILING = {
    "wrong": ("lambda x: x @ weights + 1", "incorrect: "),
    "raising": ("lambda x: x.nothing", "error: AttributeError"),
    "dying": ("lambda x: os._exit(9)", "crashed: its process ended with exit status 9"),
    "hanging": ("lambda x: time.sleep(99)", "timeout: it took more than 8 s; give it more by LIMIT="),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_contender_that_fails_is_told_and_costs_nothing_else(profiled, checkout, name):
    body, said = FAILING[name]
    decorator = f'@implementation("toy.product", technique="plain", kind="optimized", name="{name}")'
    path = checkout.implementation(f"{decorator}\ndef made(weights, shape):\n    return {body}\n")
    code, out, err = profiled("--case", CASE, "--name", f"plain/{name}", "--impl", path, "--limit", "8")
    assert code == 1 and said in err and "kept" not in out


@pytest.fixture
def run(checkout):
    """A run of this machine: n64 reaches 20 % of its floor, n256 50 %, both by the reference, which is the fastest."""
    machine = {"label": fingerprint(checkout.folder)["label"]}
    writer = RunWriter(checkout.folder / "runs" / "monday")
    ceilings = {"matrix": {"float32": 1e12}, "read_bandwidth": 1e11}
    writer.header(Header("monday", "2026-01-01T00:00:00+00:00", machine, ceilings, {"device": "cpu"}))
    for sizes, share in (("n64", 0.2), ("n256", 0.5)):
        for name, latency, slower in (("reference", 2e3, 0.0), ("transposed", 3e3, 0.1)):
            names = ("toy", "toy.product", "square", sizes, {"size": 64}, "plain", name, "optimized", "passed")
            figures = {"latency": Figure(latency), "floor_share": Figure(share - slower)}
            source = {"file": "impls/toy/reference.py", "digest": "of another day"}
            writer.record(Record(f"toy.product/square/{sizes}", *names, figures=figures, source=source), COMMON)
    return writer.folder


def test_profiles_are_kept_beside_the_run_they_explain(profiled, checkout, run):
    code, out, err = profiled("--case", CASE)
    assert code == 0 and "measured by the run: 2.00 µs, 20 % of its floor" in out, err
    assert "note: its code has changed since the run measured it" in out
    found = kept(checkout, "plain--reference", run="monday")
    assert next(row for row in found.tables["operators"] if row["name"] == "aten::mm")["ceiling_share"] > 0


def test_every_case_below_a_share_of_its_floor(profiled, run):
    code, out, err = profiled("--below", "0.3", "--tool", "memory")
    assert code == 0 and out.startswith("1 cases of") and "[1/1] toy.product/square/n64" in out, err
    assert [(p.case, p.contender, p.tool) for p in read_case(run, CASE)[0]] == [(CASE, "plain/reference", "memory")]
    code, out, _ = profiled("--below", "0.2", "--run", "monday")
    assert code == 0 and out.startswith("0 cases")


def test_a_run_of_another_machine_gets_no_profile(profiled, run):
    file = run / "run.jsonl"
    file.write_text(file.read_text().replace(fingerprint(run)["label"], "a faster one"))
    code, out, err = profiled("--case", CASE, "--tool", "memory")
    assert code == 0 and "was measured on a faster one" in err and "runs/profile/" in out
    assert profiled("--below", "1")[0] == 2


def test_files_are_read_back_and_what_is_none_is_said(tmp_path):
    profile = Profile("op/a", "x/y", "torch", "now", {"label": "m"}, {"file": "f"}, figures={"wall_ns": 1.5})
    path = write(profile, tmp_path)
    assert path == tmp_path / "profiles" / "op--a" / "x--y-torch.json" and read(path) == profile
    misshapen = path.read_text().replace('"figures": {', '"figures": 3, "dropped": {')
    for name, text in (("a", "{"), ("b", "[]"), ("c", '{"schema": 2, "type": "profile"}'), ("d", '{"schema": 1}')):
        path.with_name(f"{name}.json").write_text(text)
    path.with_name("e.json").write_text(misshapen.replace(', "dropped": {\n  "wall_ns": 1.5\n }', ""))
    found, problems = read_case(tmp_path, "op/a")
    assert found == [profile] and len(problems) == 5 and all("json: " in problem for problem in problems)
    assert "figures is no mapping" in problems[-1]
    with pytest.raises(ValueError, match="unknown tool"):
        Profile("op/a", "x/y", "perf", "now", {}, {})
    with pytest.raises(ValueError):
        write(Profile("op/a", "x/y", "torch", "now", {}, {}, figures={"wall_ns": float("nan")}), tmp_path)
