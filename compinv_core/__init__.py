"""Compositional Inversion for Stable Diffusion (arXiv 2312.08048): the method itself, without ComfyUI.

Everything here is torch and numerics. The sub-package `host` is the only place that imports ComfyUI.
"""

from __future__ import annotations

import logging

__version__ = "0.1.0"

logger = logging.getLogger("compinv")
