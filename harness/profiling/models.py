"""Are the cost models right? FLOPs by torch's formulas, bytes by Nsight Compute: `python -m harness.profiling.models`.

FLOPs: each technique of each operation is called at its smallest size on a CPU and counted by torch's formulas, by
every implementation all of whose products have one; the one that needs least stands beside the contract. Bytes: on a
GPU with ncu each of our kernels is called once, at the smallest size of the GPU's tier that leaves the L2 cache behind.
Both go into `models.json` and, as tables, into `models.md`; rows measured before and not again stay. What a counter
cannot tell is said in `models.md` around the tables. The part with ncu has not run yet.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from .. import catalog, machine, verify
from ..catalog import Catalog, Refused, choose_device
from ..contract import Operation
from ..failure import describe
from ..options import Options
from ..process import end_like_ctrl_c
from ..registry import Implementation
from ..units import aligned, digits, plain, show
from .counters import Call, take, totals, unavailable
from .subject import Unprofiled
from .traffic import Traffic

PARTS = ("flops", "traffic")
KERNELS = "triton"  # the need that our own kernels declare
LEAST_BYTES = 200e6  # four times the L2 cache of an H100 or H200
PRODUCTS = ("mm", "attention", "linear", "conv", "matmul", "dot", "einsum")  # of operators that multiply
SEED = 20
SECONDS = 210.0
WAITS = 45.0  # of the seconds, what ncu may take after the last call was begun
NOTHING = "-"
Row = dict[str, Any]


def flops(found: Catalog) -> Iterator[Row]:
    """By operation and technique at its first case: the model's FLOPs, and the fewest that a contender does."""
    done = set()
    for case in found.cases:
        operation = found.registry.operations[case.operation]
        shape = found.workloads[case.id].shape
        for technique in dict.fromkeys(contender.technique for contender in case.contenders):
            cost = None if operation.trial else operation.cost(shape, technique)
            if cost is None or (case.operation, technique) in done:
                continue
            able = [c.name for c in case.contenders if c.technique == technique and c.reason is None]
            known = found.registry.implementations[case.operation]
            counts = dict(counted(operation, [known[name] for name in able], shape))
            if counts:
                done.add((case.operation, technique))
                least = min(counts, key=lambda name: counts[name])
                yield {"case": case.id, "contender": least, "model": cost.flops, "counted": counts[least]}


def counted(operation: Operation, members: Sequence[Implementation], shape: Any) -> Iterator[tuple[str, float]]:
    """FLOPs of one call of each contender; left out are those with a product that has no formula, such as attention
    under a causal mask, and, with a word, those that raise."""
    for implementation in members:
        generator = torch.Generator().manual_seed(SEED)
        technique = implementation.technique
        try:
            prepared = verify.calling(implementation.setup(operation.weights(shape, technique, generator), shape))
            own = prepared.pack(operation.inputs(shape, technique, generator))
            with Traffic() as seen:
                prepared.call(own)
        except Exception as error:
            print(f"{operation.name} {implementation.contender}: not counted: {describe(error)}", file=sys.stderr)
            continue
        unseen = [n for n, work in seen.work.items() if work.flops is None and any(word in n for word in PRODUCTS)]
        if not unseen:
            yield implementation.contender, sum(work.flops or 0.0 for work in seen.work.values())


def kernels(found: Catalog) -> list[Call]:
    """Our kernels, each with the case to count it in: the smallest beyond the L2 cache, or else the largest."""
    sizes: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for case in found.cases:
        operation, shape = found.registry.operations[case.operation], found.workloads[case.id].shape
        for contender in case.contenders:
            needs = found.registry.implementations[case.operation][contender.name].needs
            cost = operation.cost(shape, contender.technique)
            if contender.reason is None and KERNELS in needs and operation.trial is None and cost is not None:
                size = cost.read_bytes + cost.write_bytes
                sizes.setdefault((case.operation, contender.name), []).append((size, case.id))
    chosen = []
    for (_, name), cases in sizes.items():
        beyond = [one for one in cases if one[0] >= LEAST_BYTES]
        chosen.append(((min(beyond) if beyond else max(cases))[1], name))
    return sorted(chosen)


def traffic(options: Options, calls: Sequence[Call], seconds: float) -> Iterator[Row]:
    """Counters of each call, in one process a study; a call that was not reached or failed has a reason."""
    end = time.monotonic() + seconds
    for study, group in groupby(calls, key=lambda call: call[0].split(".")[0]):
        wanted, reached = list(group), set()
        try:
            with tempfile.TemporaryDirectory() as folder:
                left = max(end - time.monotonic(), 1.0)
                report, only = Path(folder) / f"{study}.ncu-rep", dataclasses.replace(options, study=study)
                for answer in take(only, wanted, report, left, max(left - WAITS, 1.0)):
                    reached.add((answer["case"], answer["contender"]))
                    rows, model = answer.pop("rows", None), answer.pop("model", None)
                    yield answer if rows is None else {**answer, "kernels": len(rows), **totals(rows, model)}
            why = ("timeout", f"there was no time left for it; --study {study} alone, or more --seconds")
        except Unprofiled as reason:
            why = (reason.status, str(reason))
        for case, name in wanted:
            if (case, name) not in reached:
                yield {"case": case, "contender": name, "status": why[0], "reason": why[1]}


def merged(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """By case and contender, the newer of two rows, but no failure in place of a figure."""
    found = {(row["case"], row["contender"]): row for row in old}
    for row in new:
        key = (row["case"], row["contender"])
        if "reason" not in row or "reason" in found.get(key, row):
            found[key] = row
    return [found[key] for key in sorted(found)]


def lines(part: str, rows: Sequence[Row]) -> list[list[str]]:
    """Header and cells of a part's table."""
    if part == "flops":
        header = ["case", "least counted: contender", "model", "counted", "counted / model"]
        return [header, *([*_who(r), *_shown(r, "count", "model", "counted"), _over(r)] for r in rows)]
    header = [
        "case",
        "contender",
        "model",
        "DRAM read",
        "DRAM written",
        "DRAM / model",
        "L2",
        "tensor / model",
        "kernels",
    ]
    cells = []
    for row in rows:
        if "reason" in row:
            cells.append([*_who(row), row["reason"][:80], *[""] * (len(header) - 3)])
            continue
        moved = _shown(row, "bytes", "model_bytes", "dram_read_bytes", "dram_write_bytes")
        over = [_ratio(row, "dram_over_model"), *_shown(row, "bytes", "l2_bytes")]
        cells.append([*_who(row), *moved, *over, _ratio(row, "tensor_flops_over_model"), str(row["kernels"])])
    return [header, *cells]


def _who(row: Row) -> list[str]:
    return [row["case"], row["contender"]]


def _shown(row: Row, unit: str, *names: str) -> list[str]:
    return [NOTHING if row.get(name) is None else plain(show(float(row[name]), unit)) for name in names]


def _ratio(row: Row, name: str) -> str:
    return NOTHING if row.get(name) is None else digits(row[name])


def _over(row: Row) -> str:
    return digits(row["counted"] / row["model"]) if row["model"] else NOTHING


def _kept(folder: Path) -> dict[str, Any]:
    data = folder / "models.json"
    return dict(json.loads(data.read_text())) if data.is_file() else {}


def save(folder: Path, found: Mapping[str, Sequence[Row]], where: Mapping[str, Any]) -> None:
    """Put the rows into `models.json` and their tables between the marks in `models.md`, if that is there."""
    kept = _kept(folder)
    page = folder / "models.md"
    text = page.read_text() if page.is_file() else ""
    for part, rows in found.items():
        old = kept.get(part, {})
        same = old.get("machine") == where["machine"]
        now = merged(old.get("rows", []) if same else [], rows)
        kept[part] = {**where, "rows": now}
        text = _replaced(text, part, _markdown(part, now, where))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "models.json").write_text(json.dumps(kept, indent=1) + "\n")
    page.write_text(text)


def _markdown(part: str, rows: Sequence[Row], where: Mapping[str, Any]) -> list[str]:
    header, *cells = lines(part, rows)
    rule = ["---", "---", *["---:"] * (len(header) - 2)]
    told = f"{where['machine']}, torch {where['torch']}, {where['date']}"
    return [told, "", *("| " + " | ".join(row) + " |" for row in (header, rule, *cells))]


def _replaced(text: str, part: str, table: Sequence[str]) -> str:
    begin, end = f"<!-- {part} -->", f"<!-- end {part} -->"
    before, mark, rest = text.partition(begin)
    _, _, after = rest.partition(end) if mark else ("", "", "\n")
    return "\n".join([before + begin, *table, end]) + after


def _asked(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m harness.profiling.models", description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="one of the two parts; default: what this machine can do")
    parser.add_argument("--study", help="one study, for example ffn")
    parser.add_argument("--match", default="", metavar="TEXT", help="count only kernels with this in their name")
    parser.add_argument("--device", help="cpu or cuda; default: a GPU where there is one")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for the counters; default: %(default)g")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of models.json and models.md")
    return parser.parse_args(words)


def _part(part: str, asked: argparse.Namespace, device: str) -> list[Row]:
    options = Options(str(Path.cwd()), device, study=asked.study)
    if part == "flops":
        return list(flops(catalog.build(Options(options.root, "cpu", "smoke", study=asked.study))))
    counted_before = {
        (r["case"], r["contender"]) for r in _kept(asked.out).get(part, {}).get("rows", []) if "reason" not in r
    }
    wanted = [call for call in kernels(catalog.build(options)) if asked.match in " ".join(call)]
    calls = sorted(wanted, key=lambda call: (call in counted_before, call))
    print(f"{len(calls)} kernels to count", flush=True)
    found = []
    for row in traffic(options, calls, asked.seconds):
        found.append(row)
        print(f"{row['case']} {row['contender']}: {row.get('reason', 'counted')}", flush=True)
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 a kernel could not be counted, 2 the request cannot be met."""
    asked = _asked(words)
    end_like_ctrl_c()
    try:
        device = choose_device(asked.device)
        why = unavailable(device)
        if asked.only == "traffic" and why:
            raise Refused(why)
        parts = [asked.only] if asked.only else [part for part in PARTS if part == "flops" or why is None]
        found = {part: _part(part, asked, device) for part in parts}
        here = machine.fingerprint(Path.cwd())
        date = datetime.date.today().isoformat()
        save(asked.out, found, {"machine": here["label"], "torch": here["software"]["torch"], "date": date})
    except Refused as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        print(f"error: {asked.out} cannot be used: {error}", file=sys.stderr)
        return 2
    for part, rows in found.items():
        print("\n".join(["", *aligned(lines(part, rows))]))
    if asked.only is None and why:
        print(f"bytes were not counted: {why}")
    print(f"kept in {asked.out / 'models.json'} and {asked.out / 'models.md'}")
    return 1 if any("reason" in row for rows in found.values() for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
