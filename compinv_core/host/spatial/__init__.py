"""Spatial inversion guidance in the host's sampler."""
