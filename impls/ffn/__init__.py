"""Feed-forward layers: dense SwiGLU against mixture-of-experts (DeepSeekMoE), as layers and by inner operation."""
