"""Values as people read them: three significant digits and a unit that fits."""

from __future__ import annotations

_STEPS = {
    "ns": ((1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns")),
    "s": ((1.0, "s"), (1e-3, "ms")),
    "bytes": ((1024.0**3, "GiB"), (1024.0**2, "MiB"), (1024.0, "KiB"), (1.0, "B")),
    "bytes/s": ((1e12, "TB/s"), (1e9, "GB/s"), (1e6, "MB/s")),
    "FLOP/s": ((1e12, "TFLOP/s"), (1e9, "GFLOP/s"), (1e6, "MFLOP/s")),
    "tokens/s": ((1e6, "M tok/s"), (1e3, "k tok/s"), (1.0, "tok/s")),
    "count": ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1.0, "")),
}


def digits(value: float) -> str:
    """Three significant digits without an exponent where that is short: 0.0123, 1.23, 123, 12300."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.1e}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def show(value: float | None, unit: str) -> str:
    """A value in a unit that fits; a dash where there is none."""
    if value is None:
        return "-"
    if unit == "share":
        return f"{100 * value:.3g} %"
    if unit == "ratio":
        return digits(value)
    if unit == "count" and value < 1e6:
        return f"{value:.0f}"
    if unit not in _STEPS:
        return f"{digits(value)} {unit}"
    steps = _STEPS[unit]
    scale, name = next((step for step in steps if abs(value) >= step[0]), steps[-1])
    return f"{digits(value / scale)} {name}".strip()


def show_duration(seconds: float) -> str:
    """Minutes and seconds: 1m40s, 12s."""
    whole = max(0, round(seconds))
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"
