"""Model configurations: the bundled ones as data, a user's own from its Hugging Face config.json.

The fields keep the names that config.json gives them, so a bundled model and a file are read by the same code.
`Config` reads and checks any field and collects what is wrong, so that a person sees all of it at once; each study
derives its own sizes from it (`attention_shape` is the attention study's).
"""

from __future__ import annotations

import difflib
import json
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from impls.attention.shape import AttentionShape, Yarn

MOST = 2**24  # of anything a layer has; more is a mistake, and would be counted one by one
LATENT = ("deepseek_v2", "deepseek_v3", "kimi_k2")
GROUPED = ("llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe")


def _yarn(mscale: float) -> dict[str, Any]:
    return {
        "type": "yarn",
        "factor": 40,
        "original_max_position_embeddings": 4096,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": mscale,
        "mscale_all_dim": mscale,
    }


def _deepseek(model_type: str, mscale: float, **fields: Any) -> dict[str, Any]:
    latents = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
    rope = {"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "rope_scaling": _yarn(mscale)}
    return {"model_type": model_type, **latents, **rope, **fields}


def _llama(**fields: Any) -> dict[str, Any]:
    return {"model_type": "llama", "vocab_size": 128256, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, **fields}


def _qwen3_moe(**fields: Any) -> dict[str, Any]:
    routing = {"num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": True}
    rest = {"num_key_value_heads": 4, "head_dim": 128, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0}
    return {"model_type": "qwen3_moe", "vocab_size": 151936, **routing, **rest, **fields}


# DeepSeek: arXiv 2405.04434 (section 3.1.2, appendix B) and 2412.19437 (section 4.2); Llama 3.1: arXiv 2407.21783;
# Mixtral: arXiv 2401.04088; Qwen3: arXiv 2505.09388.
MODELS: dict[str, dict[str, Any]] = {
    "v2-lite": _deepseek(
        "deepseek_v2",
        mscale=0.707,
        hidden_size=2048,
        num_hidden_layers=27,
        num_attention_heads=16,
        num_key_value_heads=16,
        q_lora_rank=None,
        vocab_size=102400,
        intermediate_size=10944,
        first_k_dense_replace=1,
        moe_intermediate_size=1408,
        n_routed_experts=64,
        n_shared_experts=2,
        num_experts_per_tok=6,
        n_group=1,
        topk_group=1,
        scoring_func="softmax",
        norm_topk_prob=False,
        routed_scaling_factor=1.0,
    ),
    "v2": _deepseek(
        "deepseek_v2",
        mscale=0.707,
        hidden_size=5120,
        num_hidden_layers=60,
        num_attention_heads=128,
        num_key_value_heads=128,
        q_lora_rank=1536,
        vocab_size=102400,
        intermediate_size=12288,
        first_k_dense_replace=1,
        moe_intermediate_size=1536,
        n_routed_experts=160,
        n_shared_experts=2,
        num_experts_per_tok=6,
        n_group=8,
        topk_group=3,
        scoring_func="softmax",
        norm_topk_prob=False,
        routed_scaling_factor=16.0,
    ),
    "v3": _deepseek(
        "deepseek_v3",
        mscale=1.0,
        hidden_size=7168,
        num_hidden_layers=61,
        num_attention_heads=128,
        num_key_value_heads=128,
        q_lora_rank=1536,
        vocab_size=129280,
        intermediate_size=18432,
        first_k_dense_replace=3,
        moe_intermediate_size=2048,
        n_routed_experts=256,
        n_shared_experts=1,
        num_experts_per_tok=8,
        n_group=8,
        topk_group=4,
        scoring_func="sigmoid",
        norm_topk_prob=True,
        routed_scaling_factor=2.5,
    ),
    "llama-3.1-8b": _llama(
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        intermediate_size=14336,
    ),
    "llama-3.1-70b": _llama(
        hidden_size=8192,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        intermediate_size=28672,
    ),
    "llama-3.1-405b": _llama(
        hidden_size=16384,
        num_hidden_layers=126,
        num_attention_heads=128,
        num_key_value_heads=8,
        intermediate_size=53248,
    ),
    "qwen2.5-72b": {
        "model_type": "qwen2",
        "hidden_size": 8192,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "intermediate_size": 29568,
        "vocab_size": 152064,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0,
    },
    "mixtral-8x7b": {
        "model_type": "mixtral",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "vocab_size": 32000,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0,
    },
    "qwen3-30b-a3b": _qwen3_moe(
        hidden_size=2048, num_hidden_layers=48, num_attention_heads=32, moe_intermediate_size=768
    ),
    "qwen3-235b-a22b": _qwen3_moe(
        hidden_size=4096, num_hidden_layers=94, num_attention_heads=64, moe_intermediate_size=1536
    ),
}


class Config:
    """The fields of one configuration, read with checks; `check` raises for everything that was wrong.

    A field that is null counts as left out. A read that finds a problem notes it and returns a stand-in, so call
    `check` before computing with what was read.
    """

    def __init__(self, fields: Mapping[str, Any], source: str) -> None:
        self.fields = fields
        self.source = source
        self.missing: list[str] = []
        self.problems: list[str] = []

    def has(self, name: str) -> bool:
        """Whether the field is there and not null; `name` may lead into an object: `rope_scaling.factor`."""
        return self._value(name) is not None

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number from 1 to 2^24; required unless there is a default."""
        value = self._required(name, default)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST):
            self.problem(name, f"a whole number from 1 to {MOST:,}")
            return 1
        return 1 if value is None else value

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number above 0; required unless there is a default."""
        value = self._required(name, default)
        real = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (real and math.isfinite(value) and value > 0):
            self.problem(name, "a number above 0")
            return 1.0
        return 1.0 if value is None else float(value)

    def word(self, name: str, known: Iterable[str] | None = None) -> str:
        """A string, one of `known` unless that is None."""
        value = self._required(name, None)
        if value is not None and (not isinstance(value, str) or (known is not None and value not in known)):
            self.problem(name, "a string" if known is None else f"one of {', '.join(known)}")
        return str(value)

    def object(self, name: str) -> bool:
        """Whether the field is there and, as it must be then, an object."""
        if self.has(name) and not isinstance(self._value(name), Mapping):
            self.problem(name, "an object")
            return False
        return self.has(name)

    def problem(self, name: str, expected: str) -> None:
        """Note that the field's value is not what it must be."""
        self.problems.append(f"{name} is {json.dumps(self._value(name))}, expected {expected}")

    def check(self) -> None:
        """Raises ValueError naming the file and every field that is missing or impossible."""
        found = [f"missing {', '.join(self.missing)}"] if self.missing else []
        if found or self.problems:
            raise ValueError(f"{self.source}: {'; '.join(found + self.problems)}")

    def _value(self, name: str) -> Any:
        value: Any = self.fields
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def _required(self, name: str, default: Any) -> Any:
        if self.has(name):
            return self._value(name)
        if default is None:
            self.missing.append(name)
        return default


def configuration(name_or_path: str) -> tuple[str, Config]:
    """Label and fields of a bundled model, or of a config.json given by its path or its folder's.

    Raises ValueError for a name that is not bundled, and for a file that cannot be read or holds no JSON object.
    """
    if name_or_path.lower() in MODELS:
        name = name_or_path.lower()
        return name, Config(MODELS[name], name)
    path = Path(name_or_path).expanduser()
    if not (path.exists() or path.suffix == ".json" or len(path.parts) > 1):
        close = difflib.get_close_matches(name_or_path.lower(), MODELS, cutoff=0.4)
        meant = f"did you mean {' or '.join(close)}? " if close else ""
        raise ValueError(f"{name_or_path} is no bundled model and no file; {meant}bundled: {', '.join(MODELS)}")
    if path.is_dir():
        path = path / "config.json"
    stem = path.resolve().parent.name if path.name == "config.json" else path.stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem) or "config", Config(_fields(path), str(path))


def _fields(path: Path) -> Mapping[str, Any]:
    try:
        if path.exists() and not path.is_file():
            raise ValueError(f"{path} is no file")
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply for a configuration") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}; bundled: {', '.join(MODELS)}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds {type(data).__name__}, expected a JSON object of fields")
    return data


def attention_shape(name_or_path: str) -> tuple[str, AttentionShape]:
    """Label and attention sizes of a bundled model or a config.json, in BF16.

    MLA is the model's own where it has one. Any other model is converted in DeepSeek-V3's proportions and marked
    so: latent 4 head sizes, RoPE half a head, query latent 12 head sizes from hidden size 4096 up. GQA has the
    model's own groups where it is grouped, else 8. Biases, query-key norms and sliding windows belong to no
    technique of the comparison and are left out; a window is warned about, for it bounds the model's real cache.
    Raises ValueError for configurations that do not describe such a layer, naming the file and the fields.
    """
    label, config = configuration(name_or_path)
    latent = config.word("model_type", (*GROUPED, *LATENT)) in LATENT
    hidden, heads = config.whole("hidden_size"), config.whole("num_attention_heads")
    layers, kv_heads = config.whole("num_hidden_layers"), config.whole("num_key_value_heads", default=heads)
    norm_eps = config.number("rms_norm_eps", default=1e-6)
    rope_base, yarn = _rope(config)
    sizes = _latent_sizes(config) if latent else _converted_sizes(config, hidden, heads)
    if heads % kv_heads:
        config.problem("num_key_value_heads", f"a divisor of num_attention_heads, {heads}")
    config.check()
    if config.has("sliding_window") and config.fields.get("use_sliding_window", True):
        window = config.fields["sliding_window"]
        warnings.warn(f"{config.source}: sliding_window {window} is ignored, attention is full here", stacklevel=2)
    if not 1 < kv_heads < heads:
        kv_heads = max(n for n in range(1, 9) if heads % n == 0 and (n < heads or heads == 1))
    shape = AttentionShape(
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        layers=layers,
        rope_base=rope_base,
        yarn=yarn,
        norm_eps=norm_eps,
        converted=not latent,
        **sizes,
    )
    return label, shape


def _latent_sizes(config: Config) -> dict[str, Any]:
    """MLA's own sizes; `q_lora_rank` must be there and may be null."""
    if "q_lora_rank" not in config.fields:
        config.missing.append("q_lora_rank (null for none)")
    sizes: dict[str, Any] = {
        "head_dim": config.whole("qk_nope_head_dim"),
        "latent": config.whole("kv_lora_rank"),
        "query_latent": config.whole("q_lora_rank") if config.has("q_lora_rank") else None,
        "nope_dim": config.whole("qk_nope_head_dim"),
        "rope_dim": config.whole("qk_rope_head_dim"),
        "value_dim": config.whole("v_head_dim"),
    }
    config.check()
    for name in ("qk_nope_head_dim", "qk_rope_head_dim"):
        if config.whole(name) % 2:
            config.problem(name, "an even number: RoPE turns pairs")
    return sizes


def _converted_sizes(config: Config, hidden: int, heads: int) -> dict[str, Any]:
    """The sizes MLA would have in a model without it."""
    given = config.whole("head_dim", default=1)
    config.check()
    if not config.has("head_dim") and hidden % heads:
        config.problem("hidden_size", f"a multiple of num_attention_heads, {heads}, where head_dim is left out")
    size = given if config.has("head_dim") else hidden // heads
    if size % 4:
        name = "head_dim" if config.has("head_dim") else "hidden_size"
        config.problem(name, f"a head size divisible by 4, not {size}: RoPE turns pairs in half a head")
    return {
        "head_dim": size,
        "latent": 4 * size,
        "query_latent": 12 * size if hidden >= 4096 else None,
        "nope_dim": size,
        "rope_dim": size // 2,
        "value_dim": size,
    }


def _rope(config: Config) -> tuple[float, Yarn | None]:
    """RoPE base and YaRN; other scalings move angles, not work, and are left out.

    Newer files hold both in `rope_parameters`, older ones in `rope_theta` and `rope_scaling`.
    """
    where = "rope_parameters" if config.has("rope_parameters") else "rope_scaling"
    if not config.object(where):
        return config.number("rope_theta", default=10000.0), None
    inside = f"{where}.rope_theta"
    base = config.number(inside if config.has(inside) else "rope_theta", default=10000.0)
    kind = next((name for name in ("rope_type", "type") if config.has(f"{where}.{name}")), None)
    if kind is None or config.word(f"{where}.{kind}") != "yarn":
        return base, None
    mscale = config.number(f"{where}.mscale", default=1.0)
    if config.number(f"{where}.mscale_all_dim", default=mscale) != mscale:
        config.problem(f"{where}.mscale_all_dim", f"the same as mscale, {mscale}")
    return base, Yarn(
        factor=config.number(f"{where}.factor"),
        original_length=config.whole(f"{where}.original_max_position_embeddings"),
        beta_fast=config.number(f"{where}.beta_fast", default=32.0),
        beta_slow=config.number(f"{where}.beta_slow", default=1.0),
        mscale=mscale,
    )
