"""Attention: multi-head (with grouped and multi-query between) against Multi-head Latent Attention, as layers and as
inner kernels, in prefill, decode and training."""
