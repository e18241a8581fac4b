"""Machine code as text, and what it consists of: instructions by kind, a digest that tells one code from another.

nvdisasm comes with Triton. Addresses are left out of the digest and of what is compared, as one instruction more moves
all that follow; labels stand for the targets of branches. Loses times: an instruction in a loop counts once, however
often it runs.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from pathlib import Path

INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?(?P<name>[A-Z][A-Z0-9_]*)", re.MULTILINE)
ADDRESS = re.compile(r"^\s*/\*[0-9a-f]+\*/[ \t]*", re.MULTILINE)
LINES_OF_DEBUGGERS = re.compile(r"^\s*\.(?:loc|file)\b.*\n", re.MULTILINE)
SECTIONS_OF_DEBUGGERS = re.compile(r"^\s*\.section\s+\.debug_.*?^\s*\}\s*$\n?", re.MULTILINE | re.DOTALL)
THREADS = re.compile(r"^\s*\.reqntid\s+(\d+)", re.MULTILINE)
PADDING = "NOP"
KINDS = {
    "wgmma": re.compile(r"(?:H|Q|I|B)GMMA"),
    "mma": re.compile(r"(?:H|Q|I|B|D|O)MMA"),
    "tma": re.compile(r"UTMA\w+|UBLK\w+"),
    "convert": re.compile(r"F2FP|F2F|F2I|F2IP|I2F|I2FP|I2I"),
    "local": re.compile(r"LDL|STL"),
}


def sass(cubin: bytes) -> str:
    """The machine code of a binary, a line an instruction. Raises RuntimeError where nvdisasm says something else."""
    from triton.knobs import nvidia

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([nvidia.nvdisasm.path, "-c", file.name], capture_output=True, text=True)
    if not INSTRUCTION.search(done.stdout):
        raise RuntimeError(f"nvdisasm shows no instruction: {done.stderr.strip()[:300]}")
    return re.sub(r"[ \t]+", " ", done.stdout).replace("\n ", "\n")


def ptx(text: str) -> str:
    """PTX without what debuggers read, such as the paths of sources."""
    return LINES_OF_DEBUGGERS.sub("", SECTIONS_OF_DEBUGGERS.sub("", text))


def threads(text: str, warps: int) -> int:
    """Threads of a program by its PTX; by its warps where that does not say."""
    found = THREADS.search(text)
    return int(found[1]) if found else 32 * warps


def mix(text: str) -> dict[str, int]:
    """Instructions by kind, and all of them but padding."""
    names = [name for name in INSTRUCTION.findall(text) if name != PADDING]
    found = {kind: sum(bool(words.fullmatch(name)) for name in names) for kind, words in KINDS.items()}
    return {**found, "instructions": len(names)}


def comparable(text: str) -> str:
    """The same code without addresses and padding."""
    lines = ADDRESS.sub("", text).splitlines()
    return "\n".join(line for line in lines if not line.startswith(PADDING)) + "\n"


def digest(text: str) -> str:
    """Of what a GPU executes: instructions and labels, whatever the kernel is called."""
    body = "\n".join(line for line in comparable(text).splitlines() if line.endswith(";") or line.startswith(".L"))
    return hashlib.sha256(body.encode()).hexdigest()[:12]


def keep(folder: Path, name: str, machine: str, virtual: str) -> None:
    """Both texts as files, unless they are there: one code is compiled by many cases."""
    for suffix, text in (("sass", machine), ("ptx", virtual)):
        path = folder / f"{name}.{suffix}.txt"
        if not path.exists():
            path.write_text(text)
