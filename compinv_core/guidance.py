"""Spatial inversion under the name that others import: `location_loss` (Eq. 9)."""

from .spatial.guidance import location_loss

__all__ = ["location_loss"]
