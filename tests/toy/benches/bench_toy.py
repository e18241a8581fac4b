"""How fast is a matrix product?"""

from impls.toy.contract import Square

from harness import Workload

STUDY = "toy"


def workloads(model):
    return [Workload("toy.product", "square", f"n{n}", Square(n), tiers=("smoke", "cpu", "gpu")) for n in (64, 256)]


def bench_toy(contender):
    contender()
