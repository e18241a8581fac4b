"""Compile each decode kernel for sm_90 as it is launched; print its name, shared memory and whether its loop is
pipelined. Needs no GPU."""

from __future__ import annotations

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from impls.attention import triton_latent_kernels as kernels

COMMON = {"PAGE": 64, "C": 512, "R": 64, "STAGES": 2}
FP8 = {"GROUP": 128, "ROW_BYTES": 656}
POINTERS = {"q_ptr": "*bf16", "table_ptr": "*i32", "lengths_ptr": "*i32", "o_ptr": "*fp32", "lse_ptr": "*fp32"}
KERNELS = (
    ("attend_turned", 16, 4, "bf16", {}),
    ("attend_turned", 32, 4, "bf16", {}),
    ("attend_direct", 64, 8, "bf16", {}),
    ("attend_turned_fp8", 16, 8, "fp8e4nv", FP8),
    ("attend_direct_fp8", 64, 8, "fp8e4nv", FP8),
)


def compiled(name: str, rows: int, warps: int, latents: str, more: dict[str, int]):
    """The binary of one kernel."""
    function = getattr(kernels, name)
    constants = {**COMMON, **more, "ROWS": rows}
    types = {
        **POINTERS,
        **dict.fromkeys(kernels.RUNTIME, "i32"),
        **dict.fromkeys(constants, "constexpr"),
        "latents": f"tensordesc<{latents}[64, 512]>",
        "rope": "tensordesc<bf16[64, 64]>",
        "scales_ptr": "*fp32",
        "scale": "fp32",
    }
    names = function.arg_names
    source = ASTSource(
        function,
        {name: types[name] for name in names},
        constexprs={(names.index(key),): value for key, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name.endswith("_ptr")},
    )
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})


def main() -> None:
    """One line a kernel. A copy that is waited for where it is issued takes its barrier down in the loop."""
    for name, rows, warps, latents, more in KERNELS:
        binary = compiled(name, rows, warps, latents, more)
        text = binary.asm["ttgir"]
        loop = text[text.index("scf.for") :].split("scf.yield")[0]
        pipelined = "async_tma_copy" in loop and "inval_barrier" not in loop
        print(f"{name}/{rows}", binary.metadata.shared, "pipelined" if pipelined else "unpipelined")


if __name__ == "__main__":
    main()
