"""`make kernels` on a toy with one Triton kernel: facts, texts, and the difference to an earlier commit."""

from __future__ import annotations

import json
import subprocess

import pytest

from harness.kernels import code
from harness.kernels.listing import read

pytest.importorskip("triton")

KERNEL = """
import torch, triton, triton.language as tl
from harness import implementation

@triton.jit
def total(x_ptr, y_ptr, N: tl.constexpr):
    place = tl.arange(0, N)
    x = tl.load(x_ptr + place[:, None] * N + place[None, :])
    tl.store(y_ptr + place[:, None] * N + place[None, :], tl.dot(x, tl.trans(x)){more})

@implementation("toy.product", technique="plain", kind="optimized", name="triton", needs=("cuda", "triton"))
def product(weights, shape):
    def call(x):
        y = torch.empty_like(x)
        total[(1,)](x, y, N=128{limit})
        return y
    return call
"""
BROKEN = """
from harness import implementation

@implementation("toy.product", technique="plain", kind="optimized", name="broken", needs=("cuda", "triton"))
def broken(weights, shape):
    raise ValueError("no such tile")
"""


@pytest.fixture
def kernel(checkout):
    """Write the toy's kernel file."""

    def written(more: str = "", limit: str = ""):
        (checkout.folder / "impls/toy/kernel.py").write_text(KERNEL.format(more=more, limit=limit))

    return written


def git(checkout, *words):
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run(["git", *identity, *words], cwd=checkout.folder, check=True, capture_output=True)


def test_facts_texts_and_the_difference_to_a_revision(checkout, kernel):
    kernel()
    git(checkout, "init", "-q")
    git(checkout, "add", "-A")
    git(checkout, "commit", "-qm", "before")
    kernel(more=" + tl.cumsum(x, 0)", limit=", maxnreg=128")
    done = checkout.python("-m", "harness.kernels", "--base", "HEAD", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = checkout.folder / "runs/kernels"
    listing = read(folder)
    (now,), (change,) = listing.kernels(), listing.changes()
    assert (now.name, now.contender, now.facts["registers"], now.facts["threads"]) == (
        "total",
        "plain/triton",
        128,
        128,
    )
    assert now.facts["spilled"] > 0 and now.facts["local"] > 0 and now.facts["programs"] >= 1
    assert now.facts["wgmma"] + now.facts["mma"] == now.facts["tensor_core"] > 0
    text = (folder / f"{now.code}.sass.txt").read_text()
    assert text.count("STL") + text.count("LDL") == now.facts["local"] and code.digest(text) == now.code
    assert "/tmp" not in (folder / f"{now.code}.ptx.txt").read_text()
    assert change.before["spilled"] == 0 and "spilled" in [name for name, _, _ in change.differing]
    diff = (folder / change.diff).read_text()
    assert diff.startswith("@@") and any(line.startswith("+STL") for line in diff.splitlines())
    assert f"spilled 0 -> {now.facts['spilled']:,}" in done.stdout and "total" in done.stdout
    assert listing.sources["impls/toy/kernel.py"] and "against HEAD (" in done.stdout


def test_what_does_not_compile_is_said_and_the_rest_is_listed(checkout, kernel):
    kernel()
    (checkout.folder / "impls/toy/broken.py").write_text(BROKEN)
    done = checkout.python("-m", "harness.kernels", timeout=300)
    assert done.returncode == 1 and "plain/broken: error: not compiled: ValueError: no such tile" in done.stdout
    assert len(read(checkout.folder / "runs/kernels").kernels()) == 1


def test_requests_that_cannot_be_met_leave_what_was_there(checkout, kernel):
    kernel()
    earlier = checkout.folder / "runs/kernels/kernels.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("{}")
    for words, said in (
        (("--match", "mla/gluon"), "no kernel was compiled for K=mla/gluon"),
        (("--study", "nothing"), "nothing"),
        (("--base", "HEAD"), "is not in a git repository"),
    ):
        done = checkout.python("-m", "harness.kernels", *words, timeout=300)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert earlier.read_text() == "{}" and sorted(p.name for p in earlier.parent.parent.iterdir()) == ["kernels"]
    with pytest.raises(ValueError, match="not a listing of schema 1; make kernels writes it anew"):
        read(earlier.parent)
    earlier.write_text(json.dumps({"schema": 1, "type": "kernels", "revision": "r", "facts": {"a": 3}}))
    with pytest.raises(ValueError):
        read(earlier.parent)


def test_instructions_by_kind_whatever_guards_them():
    text = """
/*0000*/ LDC R1, c[0x0][0x28] ;
.L_x_1:
/*0010*/ @!P0 HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4], R24 ;
/*0020*/ @UP1 UTMALDG.2D [UR4], [UR6] ;
/*0030*/ F2FP.BF16.F32.PACK_AB R3, R4, R5 ;
/*0040*/ STL [R1], R3 ;
/*0050*/ IMMA.16816.S8.S8 R4, R2.ROW, R3.COL, R4 ;
/*0060*/ @P0 BRA `(.L_x_1) ;
/*0070*/ NOP ;
"""
    assert code.mix(text) == {"wgmma": 1, "mma": 1, "tma": 1, "convert": 1, "local": 1, "instructions": 7}
    moved = text.replace("/*0010*/", "/*0110*/").replace("/*0070*/ NOP ;\n", "")
    assert code.digest(moved) == code.digest(text) != code.digest(text.replace("R5", "R6"))
