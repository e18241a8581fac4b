"""What a sequence leaves behind for its next token: keys and values, or MLA's latent, in 16 bits or in FP8.

MLA keeps the normalised latent (512) and one rotated key (64) a token and layer: 1152 bytes in BF16, 656 in the FP8
format, whatever the number of heads; MHA with 128 heads of 128 keeps 65,536. The FP8 row is 512 bytes of E4M3, four
float32 scales (one per 128 values) and the 64 rotated values in BF16, which stay exact because they carry position
(FlashMLA's "FP8 with scale" format).

A slot is written by assignment, so writing twice gives the same. Slots at and past a sequence's length hold anything.
Shape suffixes: B batch, S slots, T new tokens, G key-value heads, E head size, C latent, R rotated width, N row bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .shape import DecodeShape

FP8_LATENT, FP8_ROPE, FP8_GROUP = 512, 64, 128
FP8_SCALES = FP8_LATENT + FP8_LATENT // FP8_GROUP * 4
FP8_ROW = FP8_SCALES + FP8_ROPE * 2
E4M3_MAX = 448.0


def slots(positions_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The index that picks, in a tensor [B, S, ...], the slots at `positions` of each sequence."""
    return torch.arange(positions_BT.shape[0], device=positions_BT.device)[:, None], positions_BT


@dataclass(frozen=True)
class KvCache:
    """Rotated keys and values of MHA, GQA and MQA."""

    k_BSGE: Tensor
    v_BSGE: Tensor

    def write(self, k_BTGE: Tensor, v_BTGE: Tensor, positions_BT: Tensor) -> None:
        """Put the new tokens' keys and values into their slots."""
        self.k_BSGE[slots(positions_BT)] = k_BTGE.to(self.k_BSGE.dtype)
        self.v_BSGE[slots(positions_BT)] = v_BTGE.to(self.v_BSGE.dtype)


@dataclass(frozen=True)
class LatentCache:
    """MLA's normalised latents and rotated shared keys."""

    c_BSC: Tensor
    r_BSR: Tensor

    def write(self, c_BTC: Tensor, r_BTR: Tensor, positions_BT: Tensor) -> None:
        """Put the new tokens' latents and keys into their slots."""
        self.c_BSC[slots(positions_BT)] = c_BTC.to(self.c_BSC.dtype)
        self.r_BSR[slots(positions_BT)] = r_BTR.to(self.r_BSR.dtype)

    def read(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Latents and rotated keys, [B, S, C] and [B, S, R]."""
        return self.c_BSC.to(dtype), self.r_BSR.to(dtype)


@dataclass(frozen=True)
class Fp8LatentCache:
    """The same as rows of 656 bytes, uint8 [B, S, 656]."""

    bytes_BSN: Tensor

    def write(self, c_BTC: Tensor, r_BTR: Tensor, positions_BT: Tensor) -> None:
        """Quantize the new tokens into their slots."""
        self.bytes_BSN[slots(positions_BT)] = quantize(c_BTC, r_BTR)

    def read(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Latents and rotated keys as stored, dequantized to [B, S, 512] and [B, S, 64]."""
        return dequantize(self.bytes_BSN, dtype)


def quantize(c_XC: Tensor, r_XR: Tensor) -> Tensor:
    """Rows of 656 bytes, uint8 [..., 656], from latents [..., 512] and rotated keys [..., 64].

    A group's scale is its largest magnitude over 448, so that the group fills E4M3's range.
    """
    groups = c_XC.float().unflatten(-1, (-1, FP8_GROUP))
    scales = groups.abs().amax(-1).clamp_min(torch.finfo(torch.float32).tiny * E4M3_MAX) / E4M3_MAX
    values = (groups / scales[..., None]).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn).flatten(-2)
    parts = (values, scales, r_XR.to(torch.bfloat16))
    return torch.cat([part.contiguous().view(torch.uint8) for part in parts], -1)


def dequantize(rows_XN: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Latents [..., 512] and rotated keys [..., 64] in `dtype` of rows as `quantize` makes them; multiplied in float32.

    The three parts are views of the rows; only the results are new tensors.
    """
    values = rows_XN[..., :FP8_LATENT].view(torch.float8_e4m3fn)
    scales = rows_XN[..., FP8_LATENT:FP8_SCALES].view(torch.float32)
    r_XR = rows_XN[..., FP8_SCALES:].view(torch.bfloat16)
    groups = values.float().unflatten(-1, (-1, FP8_GROUP)) * scales[..., None]
    return groups.flatten(-2).to(dtype), r_XR.to(dtype)


def numbers(tensor: Tensor) -> Tensor:
    """A cache tensor's numbers: FP8 rows dequantized to [..., 576] float32, any other tensor as it is."""
    return torch.cat(dequantize(tensor, torch.float32), -1) if tensor.dtype == torch.uint8 else tensor


def no_fp8(shape: DecodeShape) -> str | None:
    """Why a technique that keeps keys and values cannot run `shape`, or None: the FP8 row is a latent's."""
    return (
        None if shape.cache == "native" else f"the {shape.cache} cache holds a latent; this one keeps keys and values"
    )


def no_fp8_row(shape: DecodeShape) -> str | None:
    """Why MLA cannot run `shape`, or None: the FP8 row is laid out for a latent of 512 and 64 rotated values."""
    if shape.cache == "native" or (shape.model.latent, shape.model.rope_dim) == (FP8_LATENT, FP8_ROPE):
        return None
    return f"the FP8 row holds {FP8_LATENT} + {FP8_ROPE} values, not {shape.model.latent} + {shape.model.rope_dim}"
