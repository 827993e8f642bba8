"""Recording of cross-attention in the host's sampler."""
