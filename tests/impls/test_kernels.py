"""No Triton kernel escapes the exact gate: each is launched by some case of the GPU tier, and kept in its baseline."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.baseline import read

KERNELS = Path(__file__).parents[2] / "benches/baselines/kernels.txt"


@pytest.mark.usefixtures("registry")
def test_every_kernel_is_launched_by_a_case_of_the_gpu_tier():
    jit = pytest.importorskip("triton.runtime.jit")
    modules = [module for name, module in sys.modules.items() if name.startswith("impls.")]
    made = {
        function._fn_name.rsplit(".", 1)[-1]
        for module in modules
        for function in vars(module).values()
        if isinstance(function, jit.JITFunction) and function.__module__ == module.__name__
    }
    kernels = {name for name in made if not name.startswith("_")}  # the others are parts of these
    kept = {
        subject.split(" ")[1].split("#")[0]
        for facts in read(KERNELS).facts.values()
        for subject in facts
        if " " in subject
    }
    assert kernels and not kernels - kept, "no case launches them, or make baseline REASON='...' is due"
