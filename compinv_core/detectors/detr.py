"""DETR detectors (Carion et al. 2020), through `transformers`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..basics.content import ByContent
from ..basics.errors import UserError, quoted
from .bounds import MemoryBudget, check_sides
from .detections import Detection, sorted_detections
from .detr_checkpoint import PROCESSOR_FILE, DetrCheckpoint, read_detr_checkpoint

# COCO's numbering has gaps; the authors' files call them this.
_NO_CLASS = "N/A"
# Pictures are looked at with a shorter side of 800 pixels, which takes about 1 GB for this many.
_BATCH = 4
# Their settings are DETR's own.
_PROCESSORS = {"DetrImageProcessor", "DetrImageProcessorFast", "DetrImageProcessorPil", "DetrFeatureExtractor"}
_IGNORED = {"auto_map", "processor_class"}


@dataclass(frozen=True, eq=False)
class DetrDetector(ByContent):
    """A DETR and its preprocessing; a `detections.Detector`.

    Parameters
    ----------
    network : Module
        `transformers.DetrForObjectDetection`; its own device is used.
    processor : callable
        The image processor of `transformers`.
    class_names : tuple of str
        In the order of the network's outputs, without its last one, "no object".
    """

    name: str
    network: nn.Module
    processor: Any = field(compare=False)
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
        inputs = _prepared(self.processor, pictures)
        output = self.network(
            pixel_values=inputs["pixel_values"].to(parameter), pixel_mask=inputs["pixel_mask"].to(parameter.device)
        )
        output.logits, output.pred_boxes = output.logits.float(), output.pred_boxes.float()
        # Without sizes the boxes are fractions of the picture.
        found = self.processor.post_process_object_detection(output, threshold=self.threshold)
        return [sorted_detections(self._named(**picture)) for picture in found]

    def _named(self, scores: Tensor, labels: Tensor, boxes: Tensor) -> Iterator[tuple[str, float, list[float]]]:
        for index, score, box in zip(labels.tolist(), scores.tolist(), boxes.tolist(), strict=True):
            if self.class_names[index] != _NO_CLASS:
                yield self.class_names[index], score, box


def load_detr(folder: Path, name: str, threshold: float) -> DetrDetector:
    """Load a DETR from a folder as ``save_pretrained`` of `transformers` writes it, in safetensors.

    Nothing is downloaded, and `timm` is not needed. `name` is for reports.

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
        with MemoryBudget(checkpoint.weights):
            pair: Any = DetrForObjectDetection.from_pretrained(
                None, config=config, state_dict=checkpoint.weights, output_loading_info=True
            )
        network, loading = pair
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
    processor = _image_processor(checkpoint, folder)
    names = _class_names(config.id2label or {}, network.class_labels_classifier.out_features - 1)
    return DetrDetector(name, network.float().eval().requires_grad_(False), processor, names, threshold)


def _image_processor(checkpoint: DetrCheckpoint, folder: Path) -> Any:
    """The processor with the settings that were read, tried on a small picture.

    Raises
    ------
    UserError
        When it is another model's, or its settings make no sense.
    """
    from transformers import DetrImageProcessor

    settings: dict[str, Any] = dict(checkpoint.processor or {})
    kind = settings.pop("image_processor_type", settings.pop("feature_extractor_type", None)) or "DetrImageProcessor"
    if str(kind) not in _PROCESSORS:
        raise UserError(
            f"The processor of {folder.name} is {quoted(kind)}, where a DETR has DetrImageProcessor; correct "
            f"{PROCESSOR_FILE}, or remove it for DETR's own."
        )
    try:
        processor: Any = DetrImageProcessor.from_dict({key: settings[key] for key in settings if key not in _IGNORED})
        check_sides(processor)
        inputs = _prepared(processor, [torch.zeros(3, 16, 24)])
        if inputs["pixel_values"].ndim != 4 or inputs["pixel_mask"].ndim != 3:
            raise ValueError("pictures in another form")
    except Exception as error:  # settings that do not fit may fail anywhere in the library
        raise UserError(
            f"The settings of the processor in {folder.name}/{PROCESSOR_FILE} make no sense ({error}); correct them, "
            "or remove that file for DETR's own."
        ) from error
    return processor


def _prepared(processor: Any, pictures: list[Tensor]) -> Any:
    return processor(images=pictures, do_rescale=False, input_data_format="channels_first", return_tensors="pt")


def _class_names(id2label: Mapping[Any, Any], count: int) -> tuple[str, ...]:
    return tuple(str(id2label.get(index, _NO_CLASS)) for index in range(count))
