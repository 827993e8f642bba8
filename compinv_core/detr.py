"""DETR detectors (Carion et al. 2020), through `transformers`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .detections import Detection, sorted_detections
from .detr_checkpoint import PROCESSOR_FILE, DetrCheckpoint, read_detr_checkpoint
from .errors import UserError

# COCO's numbering has gaps; the authors' files call them this.
_NO_CLASS = "N/A"
# Pictures are looked at with a shorter side of 800 pixels, which takes about 1 GB for this many.
_BATCH = 4


@dataclass(frozen=True, eq=False)
class DetrDetector:
    """A DETR and its preprocessing; a `detections.Detector`.

    Parameters
    ----------
    name : str
    network : Module
        `transformers.DetrForObjectDetection`; its own device is used.
    processor : callable
        The image processor of `transformers`.
    class_names : tuple of str
        In the order of the network's outputs, without its last one, "no object".
    threshold : float
    """

    name: str
    network: nn.Module
    processor: Callable[..., Any]
    class_names: tuple[str, ...]
    threshold: float

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, each once, without COCO's gaps."""
        return tuple(name for name in dict.fromkeys(self.class_names) if name != _NO_CLASS)

    @torch.inference_mode()
    def detect(self, images: Tensor) -> list[tuple[Detection, ...]]:
        """Find objects, as `detections.Detector.detect` says."""
        return [found for batch in images.split(_BATCH) for found in self._detect_batch(batch)]

    def _detect_batch(self, images: Tensor) -> list[tuple[Detection, ...]]:
        parameter = next(self.network.parameters())
        pictures = list(images.movedim(-1, 1).float().cpu())
        inputs = self.processor(
            images=pictures, do_rescale=False, input_data_format="channels_first", return_tensors="pt"
        )
        output = self.network(
            pixel_values=inputs["pixel_values"].to(parameter), pixel_mask=inputs["pixel_mask"].to(parameter.device)
        )
        scores, classes = output.logits.float().softmax(-1)[..., :-1].max(-1)
        centre, size = output.pred_boxes.float().split(2, dim=-1)
        corners = torch.cat([centre - size / 2, centre + size / 2], dim=-1)
        found = []
        for picture_scores, picture_classes, boxes in zip(scores, classes, corners, strict=True):
            rows = zip(picture_classes.tolist(), picture_scores.tolist(), boxes.tolist(), strict=True)
            named = ((self.class_names[index], score, box) for index, score, box in rows if score >= self.threshold)
            found.append(sorted_detections(row for row in named if row[0] != _NO_CLASS))
        return found


def load_detr(folder: Path, name: str, threshold: float) -> DetrDetector:
    """Load a DETR from a folder; nothing is downloaded, and `timm` is not needed.

    Parameters
    ----------
    folder : Path
        As ``save_pretrained`` of `transformers` writes it, in safetensors.
    name : str
        For reports.
    threshold : float
        In [0, 1].

    Returns
    -------
    DetrDetector

    Raises
    ------
    UserError
        When the folder holds no DETR, or `transformers` is missing.
    """
    checkpoint = read_detr_checkpoint(folder)
    try:
        from transformers import DetrConfig, DetrForObjectDetection
    except ImportError as error:
        raise UserError(
            f"DETR detectors need the package transformers, which cannot be imported ({error}); "
            "install it with: pip install transformers."
        ) from error
    try:
        config = DetrConfig.from_dict(checkpoint.settings)
        # With the loading info a pair comes back, which the library's types do not say.
        pair: Any = DetrForObjectDetection.from_pretrained(
            None, config=config, state_dict=checkpoint.weights, output_loading_info=True
        )
        network, loading = pair
        processor = _image_processor(checkpoint)
    except Exception as error:  # settings that do not fit may fail anywhere in the library
        raise UserError(
            f"The DETR in {folder.name} cannot be built by this version of transformers; "
            "download the detector again, or choose another."
        ) from error
    if loading["missing_keys"]:
        raise UserError(
            f"The weights in {folder.name} are not those of a DETR that detects objects, for "
            f"{len(loading['missing_keys'])} tensors are missing; choose another detector."
        )
    names = _class_names(config.id2label or {}, network.class_labels_classifier.out_features - 1)
    return DetrDetector(name, network.float().eval().requires_grad_(False), processor, names, threshold)


def _image_processor(checkpoint: DetrCheckpoint) -> Callable[..., Any]:
    from transformers import AutoImageProcessor, DetrImageProcessor

    if checkpoint.processor is None:
        return DetrImageProcessor()
    # Only the settings that were read and checked are handed on, never the folder: that could bring code with it.
    with tempfile.TemporaryDirectory() as folder:
        settings = {key: value for key, value in checkpoint.processor.items() if key != "auto_map"}
        (Path(folder) / PROCESSOR_FILE).write_text(json.dumps(settings))
        return AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _class_names(id2label: Mapping[Any, Any], count: int) -> tuple[str, ...]:
    return tuple(str(id2label.get(index, _NO_CLASS)) for index in range(count))
