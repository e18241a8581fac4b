"""A trace as spans of time, and what follows from it: own time by operator, kernels, and gaps in which a GPU waited.

Nothing here knows torch, so that a trace can be written down in a test. Times are nanoseconds on one clock. An
operator's own time is what it spends outside the operators it calls. Loses sight of what no span covers: time in Python
between operators is the call's own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["range", "operator", "launch", "kernel"]
LEAST_GAP_NS = 1_000
OUTSIDE = "outside operators"


@dataclass(frozen=True)
class Span:
    """One entry of a trace.

    kind         range: a phase; operator: on the host; launch: the host's call that puts a kernel on the device;
                 kernel: on the device, copies and fills too
    lane         thread of the host, or stream of the device
    identity     an operator's own number; of a kernel the number of the operator that launched it, 0 for none
    correlation  joins a launch with its kernel
    """

    name: str
    kind: Kind
    begin: int
    end: int
    lane: int = 0
    identity: int = 0
    correlation: int = 0

    @property
    def length(self) -> int:
        """Nanoseconds."""
        return self.end - self.begin


@dataclass
class Row:
    """One operator or kernel over all calls: times in ns, `count` how often; `kernels` by name of those it launched."""

    name: str
    own_ns: int = 0
    device_ns: int = 0
    count: int = 0
    launches: int = 0
    kernels: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Gap:
    """The device had nothing to do between two kernels of one call; `host`: because the next one was enqueued late."""

    begin: int
    length: int
    after: str
    before: str
    host: bool


class Trace:
    """Spans, and the `calls` among its ranges, which are what is looked at."""

    def __init__(self, spans: Iterable[Span], calls: str) -> None:
        self.spans = sorted(spans, key=lambda span: (span.begin, -span.end))
        self.calls = [span for span in self.spans if span.kind == "range" and span.name == calls]
        self._launched = {span.correlation: span for span in self.spans if span.kind == "launch"}

    @property
    def phases(self) -> dict[str, int]:
        """Nanoseconds by name of range, all of that name together."""
        found: dict[str, int] = defaultdict(int)
        for span in self.spans:
            if span.kind == "range":
                found[span.name] += span.length
        return dict(found)

    def _within(self, kind: Kind) -> Iterator[tuple[int, Span]]:
        """Spans of a kind with the number of the call in which they began."""
        number = 0
        for span in self.spans:
            while number < len(self.calls) and span.begin > self.calls[number].end:
                number += 1
            if number == len(self.calls):
                return
            if span.kind == kind and span.begin >= self.calls[number].begin:
                yield number, span

    def operators(self) -> list[Row]:
        """By name, with the time of the kernels that each launched; what the calls spend outside of them comes last."""
        rows: dict[str, Row] = {}
        names: dict[int, str] = {}
        lanes: dict[int, list[tuple[Span, Row]]] = defaultdict(list)
        outside = Row(OUTSIDE, own_ns=sum(call.length for call in self.calls), count=len(self.calls))
        homes = {call.lane for call in self.calls}
        for _, span in self._within("operator"):
            row = rows.setdefault(span.name, Row(span.name))
            names[span.identity] = span.name
            stack = lanes[span.lane]
            while stack and stack[-1][0].end <= span.begin:
                stack.pop()
            parent = stack[-1][1] if stack else outside if span.lane in homes else None
            if parent is not None:
                parent.own_ns -= span.length
            row.own_ns += span.length
            if not stack or stack[-1][1] is not row:  # one overload that calls another is one call
                row.count += 1
            stack.append((span, row))
        for _, kernel in self._within("kernel"):
            row = rows.get(names.get(kernel.identity, ""), outside)
            row.device_ns += kernel.length
            row.launches += 1
            row.kernels[kernel.name] = row.kernels.get(kernel.name, 0) + 1
        return [*rows.values(), outside]

    def kernels(self) -> list[Row]:
        """By name."""
        rows: dict[str, Row] = {}
        for _, span in self._within("kernel"):
            row = rows.setdefault(span.name, Row(span.name))
            row.device_ns += span.length
            row.count += 1
        return list(rows.values())

    def gaps(self) -> list[Gap]:
        """Where nothing ran on any stream for a microsecond and more, between the first and the last kernel of a call.

        The host is to blame where the next kernel's launch returned after the device had run dry.
        """
        found: list[Gap] = []
        busy: dict[int, Span] = {}
        for number, span in self._within("kernel"):
            last = busy.get(number)
            if last is not None and span.begin - last.end >= LEAST_GAP_NS:
                launch = self._launched.get(span.correlation)
                late = launch is not None and launch.end > last.end
                found.append(Gap(last.end, span.begin - last.end, last.name, span.name, late))
            if last is None or span.end > last.end:
                busy[number] = span
        return found

    def device(self) -> dict[str, float]:
        """Of a call on average, ns: from its first kernel to the end of its last one, and how much of that was busy.

        Empty where nothing ran on a device.
        """
        first: dict[int, int] = {}
        end: dict[int, int] = {}
        busy = 0
        for number, span in self._within("kernel"):
            first.setdefault(number, span.begin)
            reached = end.get(number, span.begin)
            busy += max(0, span.end - max(reached, span.begin))
            end[number] = max(reached, span.end)
        if not first:
            return {}
        window = sum(end[number] - first[number] for number in first)
        waited = sum(gap.length for gap in self.gaps() if gap.host)
        idle = sum(gap.length for gap in self.gaps() if not gap.host)
        names = {"device_window_ns": window, "device_busy_ns": busy, "waits_for_host_ns": waited, "other_gaps_ns": idle}
        return {name: value / len(first) for name, value in names.items()}


def merged(gaps: Sequence[Gap]) -> list[dict[str, object]]:
    """Gaps between the same two kernels for the same reason, together, the longest in all first."""
    groups: dict[tuple[str, str, bool], list[int]] = defaultdict(list)
    for gap in gaps:
        groups[gap.after, gap.before, gap.host].append(gap.length)
    rows: list[dict[str, object]] = [
        {"after": after, "before": before, "host": host, "ns": sum(lengths), "count": len(lengths)}
        for (after, before, host), lengths in groups.items()
    ]
    return sorted(rows, key=lambda row: -int(str(row["ns"])))
