"""The pack's own socket types; each carries one frozen dataclass of `compinv_core`."""

from __future__ import annotations

from comfy_api.latest import io

Anchors = io.Custom("COMPINV_ANCHORS")
Concept = io.Custom("COMPINV_CONCEPT")
ConceptImages = io.Custom("COMPINV_CONCEPT_IMAGES")
Layout = io.Custom("COMPINV_LAYOUT")
LayoutPredictor = io.Custom("COMPINV_LAYOUT_PREDICTOR")
LayoutDataset = io.Custom("COMPINV_LAYOUT_DATASET")
Detector = io.Custom("COMPINV_DETECTOR")
Attention = io.Custom("COMPINV_ATTENTION")
Report = io.Custom("COMPINV_REPORT")
