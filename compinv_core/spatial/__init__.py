"""Spatial inversion (Eq. 9): each phrase's cross-attention is moved into its box."""
