"""The product of two square matrices."""

from harness import implementation


@implementation("toy.product", technique="plain", kind="reference")
def product(weights, shape):
    """One matrix product."""
    return lambda x: x @ weights


@implementation("toy.product", technique="plain", kind="optimized")
def transposed(weights, shape):
    """The same product, from the other side."""
    return lambda x: (weights.T @ x.T).T
