"""Semantic inversion under the name that others import: `sparse_code` and `anchor_loss` (Eq. 6)."""

from .semantic.anchors import anchor_loss, sparse_code

__all__ = ["anchor_loss", "sparse_code"]
