"""The same contests without pytest: `python -m harness.run`, for a machine that has torch and little else."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import terminal
from .case import TIERS
from .catalog import Refused, nearest
from .options import Options
from .session import Session


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a run."""
    parser.add_argument("--study", help="one study, for example attention")
    parser.add_argument("--device", help="cpu or cuda; default: a GPU where there is one")
    parser.add_argument("--tier", help="; ".join(f"{name}: {what}" for name, what in TIERS.items()))
    parser.add_argument("--budget", type=float, help="seconds for the whole run")
    parser.add_argument("--model", help="a bundled name, or the path of a Hugging Face config.json")
    parser.add_argument("--impl", help="a file with your own implementations")
    parser.add_argument("--resume", help="a run to finish: its folder or name")
    parser.add_argument(
        "--timeout", type=float, default=120.0, help="seconds after which a silent contender is stopped"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept")


def main(words: list[str] | None = None) -> int:
    """Exit status: 0 all verified; 1 something the user asked for failed; 2 the request could not be met."""
    parser = argparse.ArgumentParser(prog="python -m harness.run", description=__doc__)
    arguments(parser)
    parser.add_argument("--case", action="append", help="only this case; may be given several times")
    parser.add_argument("--list", action="store_true", help="print cases and contenders, and measure nothing")
    asked = parser.parse_args(words)
    options = Options(
        root=str(Path.cwd()),
        device=asked.device,
        tier=asked.tier,
        budget=asked.budget,
        study=asked.study,
        model=asked.model,
        impl=asked.impl,
        timeout=asked.timeout,
    )
    try:
        session = Session(options, asked.runs, asked.resume)
    except Refused as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 2
    try:
        if asked.list:
            print("\n".join(terminal.listing(session.catalog)))
            return _report_problems(session)
        return _measure(session, asked.case)
    except OSError as error:
        print(f"error: {session.folder} cannot be written: {error}; what was written before is kept", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nstopped; continue with RESUME={session.folder.name}", file=sys.stderr)
        return 130
    finally:
        session.close()


def _measure(session: Session, wanted: list[str] | None) -> int:
    cases = [case.id for case in session.catalog.cases]
    for case in wanted or []:
        if case not in cases:
            print(f"error: unknown case {case}; {nearest(case, cases)}", file=sys.stderr)
            return 2
    chosen = [case for case in cases if not wanted or case in wanted]
    session.expect(chosen)
    for problem in session.problems:
        print(f"problem: {problem}", file=sys.stderr)
    for number, case in enumerate(chosen, 1):
        names = [c.name for c in session.case(case).contenders]
        able = len(session.contenders(session.case(case), names))
        print(terminal.progress(session, number, len(chosen), case, able), flush=True)
        session.measure(case, names)
    print("\n".join([*terminal.table(session.records), "", terminal.LEGEND]))
    if session.left_out:
        print(f"left out, the budget was spent: {', '.join(session.left_out)}")
    failed = _report_problems(session)
    bad = [r for r in session.records if r.status not in ("passed", "unavailable")]
    print(f"{len(session.records)} records, {len(bad)} failed: {session.folder}")
    return 1 if bad or failed else 0


def _report_problems(session: Session) -> int:
    for problem in session.problems:
        print(f"problem: {problem}", file=sys.stderr)
    return 1 if session.problems else 0


if __name__ == "__main__":
    sys.exit(main())
