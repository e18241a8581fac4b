"""How far does a descent come?"""

from impls.descent.contract import Slope

from harness import Workload

STUDY = "descent"


def workloads(model):
    return [Workload("descent.walk", "slope", f"s{n}", Slope(64, n), tiers=("smoke", "cpu", "gpu")) for n in (40,)]


def bench_descent(contender):
    contender()
