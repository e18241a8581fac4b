"""How fast is a matrix product?"""

from harness import Workload
from impls.toy.contract import Square

STUDY = "toy"


def workloads(model):
    return [Workload("toy.product", "square", f"n{n}", Square(n), tiers=("smoke", "cpu", "gpu")) for n in (64, 256)]


def bench_toy(contender):
    contender()
