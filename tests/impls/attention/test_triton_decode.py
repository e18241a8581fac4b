"""The Triton decode kernels: right in the interpreter on odd shapes, launches that split as they should.

The comparison runs in a process of its own, for Triton decides when it is imported whether it interprets. On a GPU the
same launches are compared there. test_triton_layer.py compiles them for Hopper.
"""

from __future__ import annotations

import pytest
import torch

from impls.attention.triton_latent_decode import PAGE, launch_for
from tests.impls.child import run

pytest.importorskip("triton")


def test_every_launch_equals_plain_attention():
    interpret = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    assert ", 0 wrong" in run("-m", "tests.impls.attention.triton_oracle", **interpret)


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("heads", [1, 16, 17, 32, 64, 128, 256])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 131072), (4, 1024), (128, 4096), (500, 100)])
def test_launches_split_long_sequences_over_the_processors(fp8, heads, batch, length):
    launch = launch_for(batch, heads, length, fp8, 132)
    programs, pages = batch * -(-heads // launch.rows), -(-length // PAGE)
    assert launch.rows in (16, 32, 64) and launch.stages >= 2
    assert 1 <= launch.splits <= pages
    if pages >= 132:
        assert programs * launch.splits >= 66
