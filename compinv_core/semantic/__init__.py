"""Semantic inversion (Eq. 6, 10): the learned word is pulled to a sparse-coded handful of anchor concepts."""
