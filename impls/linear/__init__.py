"""Linear layers: BF16 against fine-grained FP8 (DeepSeek-V3), as layers, products and quantizers."""
