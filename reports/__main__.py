"""`python -m reports` builds the site; `python -m reports serve` shows it to this machine's own browser."""

from __future__ import annotations

import argparse
import functools
import http.server
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 2 where there is nothing to show or the request cannot be met."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["serve"]:
        return serve(words[1:])
    parser = argparse.ArgumentParser(prog="python -m reports", description="Build pages from runs.")
    parser.add_argument("named", nargs="*", type=Path, metavar="RUN", help="folders of further runs to show")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are; the newest is shown")
    parser.add_argument("--recorded", type=Path, default=ROOT / "reports" / "recorded", help="recorded runs, all shown")
    parser.add_argument("--out", type=Path, default=Path("reports/site"), help="where the site goes")
    chosen = parser.parse_args(words)
    try:
        from . import website
    except ModuleNotFoundError as error:
        print(f"Pages need the package {error.name}: python -m pip install {error.name}", file=sys.stderr)
        return 2
    found = website.find(chosen.runs, chosen.recorded, chosen.named)
    if not found.runs:
        tell(found.problems)
        print(f"No run to show in {chosen.runs} or {chosen.recorded}. Measure one first: make bench")
        return 2
    try:
        written = website.build(found, chosen.out, ROOT)
    except ValueError as error:
        tell(found.problems)
        print(error, file=sys.stderr)
        return 2
    tell(found.problems)
    inside = [page.relative_to(chosen.out).parts for page in written]
    shown = len({parts[0] for parts in inside if len(parts) > 1})  # a folder a run
    print(f"{len(written)} pages from {shown} run{'s' if shown > 1 else ''}.")
    print(f"Open {chosen.out / 'index.html'}")
    return 2 if any(not website.below(folder) for folder in chosen.named) else 0


def tell(problems: Sequence[str]) -> None:
    """What was wrong with the runs, a line each."""
    for problem in problems:
        print(f"Problem: {problem}")


def serve(words: Sequence[str]) -> int:
    """Serve a built site on the loopback address until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m reports serve", description="Serve the site to this machine only.")
    parser.add_argument("--out", type=Path, default=Path("reports/site"), help="where the site is")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any free port")
    chosen = parser.parse_args(words)
    if not (chosen.out / "index.html").is_file():
        print(f"There is no site in {chosen.out}. Build it first: python -m reports", file=sys.stderr)
        return 2
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(chosen.out))
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", chosen.port), handler)
    except OSError as error:
        print(f"Port {chosen.port} cannot be used ({error.strerror}); choose another with --port", file=sys.stderr)
        return 2
    with server:
        print(f"Open http://127.0.0.1:{server.server_port}/index.html (Ctrl-C ends)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
