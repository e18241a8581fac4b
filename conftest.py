"""pytest is the door: one node a contender, and a contest at the first node of its case.

`pytest benches` measures; `-k`, `-x` and `--collect-only` work as everywhere. Samples are shown by pytest-benchmark
too; what is kept and judged is the harness's own record.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent
SESSION: pytest.StashKey[Any] = pytest.StashKey()
SELECTED: pytest.StashKey[dict[str, list[str]]] = pytest.StashKey()
STARTED: pytest.StashKey[list[str]] = pytest.StashKey()
SHOWN_SAMPLES = 1000


def pytest_addoption(parser: pytest.Parser) -> None:
    """The words of `make bench`."""
    group = parser.getgroup("whalebench")
    group.addoption("--study", help="one study, for example attention")
    group.addoption("--device", help="cpu or cuda; default: a GPU where there is one")
    group.addoption("--tier", help="smoke, cpu, gpu or full; default: after the device")
    group.addoption("--budget", type=float, help="seconds for the whole run")
    group.addoption("--model", help="a bundled name, or the path of a Hugging Face config.json")
    group.addoption("--impl", help="a file with your own implementations")
    group.addoption("--resume", help="a run to finish: its folder or name")
    group.addoption("--contender-timeout", type=float, default=120.0, help="seconds until a silent one is stopped")
    group.addoption("--runs", type=Path, default=ROOT / "runs", help="where runs are kept")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to measure in parallel: contenders would time each other."""
    if _wants_benches(config) and getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("benchmarks are not run with -n: processes side by side would time each other")


def _wants_benches(config: pytest.Config) -> bool:
    benches = ROOT / "benches"
    paths = [config.invocation_params.dir.joinpath(str(word).split("::")[0]).resolve() for word in config.args]
    return any(path == benches or benches in path.parents for path in paths)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Ask the worker what can be measured before anything is collected, so that a refusal is the only thing said."""
    if _wants_benches(session.config):
        _session(session.config)


def _session(config: pytest.Config) -> Any:
    if SESSION not in config.stash:
        from harness.catalog import Refused
        from harness.options import Options
        from harness.session import Session

        option = config.option
        options = Options(
            root=str(ROOT),
            device=option.device,
            tier=option.tier,
            budget=option.budget,
            study=option.study,
            model=option.model,
            impl=option.impl,
            timeout=option.contender_timeout,
        )
        try:
            config.stash[SESSION] = Session(options, option.runs, option.resume)
        except Refused as refusal:
            raise pytest.UsageError(str(refusal)) from None
    return config.stash[SESSION]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every contender of every case of the bench file's study becomes a node."""
    if "contender" not in metafunc.fixturenames:
        return
    cases = [case for case in _session(metafunc.config).catalog.cases if case.study == metafunc.module.STUDY]
    nodes = [(case.id, contender) for case in cases for contender in case.contenders]
    ids = [f"{case}/{contender.name}" for case, contender in nodes]
    metafunc.parametrize("contender", nodes, ids=ids, indirect=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """After deselection: which contenders each contest has, and which contests share the budget."""
    if SESSION not in session.config.stash:
        return
    selected: dict[str, list[str]] = {}
    for item in session.items:
        if isinstance(item, pytest.Function) and "contender" in item.fixturenames:
            case, contender = item.callspec.params["contender"]
            selected.setdefault(case, []).append(contender.name)
    for problem in session.config.stash[SESSION].problems:
        print(f"problem: {problem}")
    session.config.stash[SELECTED], session.config.stash[STARTED] = selected, []
    session.config.stash[SESSION].expect(selected)


class Node:
    """What a bench function receives: calling it reports this contender's record as the node's outcome."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self.case, self.contender = request.param

    def __call__(self) -> None:
        if self.contender.reason is not None:
            pytest.skip(self.contender.reason)
        record = self._record()
        if record is None:
            pytest.skip("the budget was spent before this case; give BUDGET= more seconds")
        if record.status == "unavailable":
            pytest.skip(record.reason)
        if record.status != "passed":
            pytest.fail(f"{record.status}: {record.reason}", pytrace=False)
        self._show(record)

    def _record(self) -> Any:
        from harness import terminal

        stash = self._request.config.stash
        bench, selected, started = stash[SESSION], stash[SELECTED], stash[STARTED]
        names = selected[self.case]
        if self.case not in started:
            started.append(self.case)
            able = bench.contenders(bench.case(self.case), names)
            added = [name for name in able if name not in names]
            line = terminal.progress(bench, len(started), len(selected), self.case, len(able))
            if added:
                line += f" (added for comparison: {', '.join(added)})"
            capture = self._request.config.pluginmanager.getplugin("capturemanager")
            with capture.global_and_fixture_disabled():
                print(f"\n{line}", end=" ", flush=True)
        try:
            return bench.measure(self.case, names).get(self.contender.name)
        except OSError as error:
            pytest.exit(f"{bench.folder} cannot be written: {error}; what was written before is kept", returncode=2)

    def _show(self, record: Any) -> None:
        """Hand the samples to pytest-benchmark through its public API: a virtual clock and pedantic rounds."""
        from harness.record import load_samples

        samples = load_samples(self._request.config.stash[SESSION].folder, record)[:SHOWN_SAMPLES] / 1e9
        if not self._request.config.pluginmanager.hasplugin("benchmark") or not samples.size:
            return
        benchmark = self._request.getfixturevalue("benchmark")
        clock = self._request.node.get_closest_marker("benchmark").kwargs["timer"]
        pending = iter(samples.tolist())
        benchmark.group = record.case
        benchmark.extra_info.update(
            {name: figure.value for name, figure in record.figures.items()} | {"baseline": record.baseline}
        )
        benchmark.pedantic(clock.advance, setup=lambda: ((next(pending),), {}), rounds=len(samples), warmup_rounds=0)


class VirtualClock:
    """A timer that stands still until it is advanced by a sample taken elsewhere."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self._now += seconds


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each bench node gets a virtual clock for pytest-benchmark; studies without a case here have no node."""
    items[:] = [item for item in items if not _without_cases(item)]
    for item in items:
        if "contender" in getattr(item, "fixturenames", ()) and item.config.pluginmanager.hasplugin("benchmark"):
            item.add_marker(pytest.mark.benchmark(timer=VirtualClock()))


def _without_cases(item: pytest.Item) -> bool:
    """Whether this is what pytest makes of a bench function that was given no contender."""
    return "contender" in getattr(item, "fixturenames", ()) and not isinstance(
        item.callspec.params.get("contender"), tuple
    )


@pytest.fixture
def contender(request: pytest.FixtureRequest) -> Node:
    """The contender of this node."""
    return Node(request)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    """The closing table, what was left out, and what was wrong with the request."""
    from harness import terminal

    if SESSION not in config.stash or config.option.collectonly:
        return
    bench = config.stash[SESSION]
    if bench.records:
        terminalreporter.section("whalebench")
        for line in [*terminal.table(bench.records), "", terminal.LEGEND]:
            terminalreporter.write_line(line)
    if bench.left_out:
        terminalreporter.write_line(f"left out, the budget was spent: {', '.join(bench.left_out)}")
    for problem in bench.problems:
        terminalreporter.write_line(f"problem: {problem}", red=True)
    if bench.records:
        terminalreporter.write_line(f"run: {bench.folder} · {bench.account}")
    if exitstatus == pytest.ExitCode.INTERRUPTED:
        terminalreporter.write_line(f"stopped; continue with make bench RESUME={bench.folder.name}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Stop the worker; a request with problems, such as a file that did not load, does not end well."""
    if SESSION in session.config.stash:
        bench = session.config.stash[SESSION]
        bench.close()
        if bench.problems and exitstatus == 0:
            session.exitstatus = 1
