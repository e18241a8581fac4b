"""The six attention operations: decode, prefill and training, each as a layer and as its inner kernel.

A layer takes hidden states and returns hidden states; its kernel takes queries, keys and values, or a cache, and
returns the heads' outputs. What is held equal between techniques: hidden size, heads, RoPE base, batch, lengths and
dtype. Parameters and FLOPs differ and are reported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from harness import Metric, Operation, operation

from . import cost, inputs
from .cache import numbers, slots
from .shape import DecodeShape, SequenceShape
from .weights import draw_weights

BASELINE = ("mha/sdpa-cudnn", "mha/sdpa-flash", "mha/sdpa", "mha/reference")

KV_BYTES = Metric("kv_bytes_per_token", "bytes", "lower", "Bytes one token leaves in one layer's cache.", exact=0)
PARAMETERS = Metric("parameters", "count", "neither", "Entries of one layer's projection matrices.", exact=0)
CACHE_ERROR = Metric(
    "cache_error",
    "ratio",
    "lower",
    "Relative Frobenius distance between the true results with the quantized cache and with the exact one.",
)


def _no_weights(shape: Any, technique: str, generator: torch.Generator) -> None:
    """Kernels have none."""


def _decode_facts(shape: DecodeShape, technique: str) -> Mapping[str, float]:
    return {**_kernel_facts(shape, technique), **_layer_facts(shape, technique)}


def _kernel_facts(shape: DecodeShape, technique: str) -> Mapping[str, float]:
    return {KV_BYTES.name: cost.kv_bytes(shape.model, technique, shape.cache)}


def _layer_facts(shape: DecodeShape | SequenceShape, technique: str) -> Mapping[str, float]:
    return {PARAMETERS.name: cost.parameters(shape.model, technique)}


def _exact_cache(shape: DecodeShape) -> Mapping[str, DecodeShape]:
    return {} if shape.cache == "native" else {CACHE_ERROR.name: replace(shape, cache="native")}


def _new_slots(given: inputs.DecodeInputs) -> Mapping[str, Any]:
    steps_T = torch.arange(given.x_BTD.shape[1], device=given.x_BTD.device)
    index = slots(given.lengths_B[:, None] + steps_T)
    return {f"cache.{field.name}": index for field in dataclasses.fields(given.cache)}


def _decoded(shape: DecodeShape) -> int:
    return shape.batch * shape.new_tokens


def _processed(shape: SequenceShape) -> int:
    return shape.batch * shape.length


operation(
    Operation(
        "attention.decode",
        weights=draw_weights,
        inputs=inputs.draw_decode,
        cost=cost.decode,
        tokens=_decoded,
        baseline=BASELINE,
        mutable=("cache",),
        written=_new_slots,
        real=numbers,
        pieces=inputs.decode_pieces,
        metrics=(KV_BYTES, PARAMETERS, CACHE_ERROR),
        facts=_decode_facts,
        variants=_exact_cache,
    )
)
operation(
    Operation(
        "attention.decode_kernel",
        weights=_no_weights,
        inputs=inputs.draw_decode_kernel,
        cost=cost.decode_kernel,
        tokens=_decoded,
        baseline=BASELINE,
        mutable=("cache",),
        real=numbers,
        pieces=inputs.decode_pieces,
        metrics=(KV_BYTES, CACHE_ERROR),
        facts=_kernel_facts,
        variants=_exact_cache,
    )
)
operation(
    Operation(
        "attention.prefill",
        weights=draw_weights,
        inputs=inputs.draw_sequence,
        cost=cost.prefill,
        tokens=_processed,
        baseline=BASELINE,
        pieces=inputs.sequence_pieces,
        metrics=(PARAMETERS,),
        facts=_layer_facts,
    )
)
operation(
    Operation(
        "attention.prefill_kernel",
        weights=_no_weights,
        inputs=inputs.draw_sequence_kernel,
        cost=cost.prefill_kernel,
        tokens=_processed,
        baseline=BASELINE,
        pieces=inputs.sequence_pieces,
    )
)
operation(
    Operation(
        "attention.train",
        weights=draw_weights,
        inputs=inputs.draw_train,
        cost=cost.train,
        tokens=_processed,
        baseline=BASELINE,
        metrics=(PARAMETERS,),
        facts=_layer_facts,
    )
)
operation(
    Operation(
        "attention.train_kernel",
        weights=_no_weights,
        inputs=inputs.draw_train_kernel,
        cost=cost.train_kernel,
        tokens=_processed,
        baseline=BASELINE,
        pieces=inputs.sequence_pieces,
    )
)
