"""Nodes that find objects in pictures."""

from __future__ import annotations

from comfy_api.latest import io

from ..compinv_core.basics.errors import remark
from ..compinv_core.detectors.backends import BACKENDS
from ..compinv_core.detectors.bounding_boxes import detections_to_bounding_boxes
from ..compinv_core.host.detectors.files import detector_fingerprint, detector_names
from ..compinv_core.host.detectors.loading import load_detector
from ..compinv_core.host.graph.remarks import remarked
from .schema import CATEGORY, Detector


class LoadDetector(io.ComfyNode):
    """A detector from disk, or from the hub where the person picks one of its names."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvLoadDetector",
            display_name="Load Detector",
            category=CATEGORY,
            description="Loads a network that finds objects: a DETR (transformers) or a YOLO (ultralytics).",
            search_aliases=["compinv", "detr", "yolo", "ultralytics", "object detection", "bbox detector"],
            inputs=[
                io.Combo.Input(
                    "backend",
                    options=list(BACKENDS),
                    default=next(iter(BACKENDS)),
                    tooltip="Kind of the network. detr: a folder of transformers, the paper's choice. yolo: a .pt file "
                    "of ultralytics; nothing in it is run, only its weights are read.",
                ),
                io.Combo.Input(
                    "model",
                    options=detector_names(),
                    tooltip="The detector: a path below models/ (DETR folders in compinv/detectors, YOLO files there "
                    "and in ultralytics). The two facebook names are downloaded when they are first used (170 and "
                    "240 MB, into models/compinv/detectors); nothing else is ever downloaded. miniature world is for "
                    "the small model that comes with the pack. The paper: DETR.",
                ),
                io.Float.Input(
                    "threshold",
                    default=0.8,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Least score of a found object, 0 to 1. The paper: 0.8. YOLO's scores are lower; 0.25 to "
                    "0.5 is usual there.",
                ),
                io.String.Input(
                    "path",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="A detector elsewhere below models/, such as my-models/shapes.pt; it takes the place of "
                    "model. Empty: model counts.",
                ),
            ],
            outputs=[Detector.Output(display_name="detector", tooltip="For Detect, and for collecting layouts.")],
        )

    @classmethod
    def fingerprint_inputs(cls, backend, model, threshold, path="") -> tuple:
        # A name that comes over a link is not known here.
        name = path.strip() or model if path is not None else None
        return (backend, model, threshold, path, detector_fingerprint(name) if name else [])

    @classmethod
    def execute(cls, backend, model, threshold, path="") -> io.NodeOutput:
        return io.NodeOutput(load_detector(backend, path.strip() or model, threshold))


class Detect(io.ComfyNode):
    """Pictures to bounding boxes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvDetect",
            display_name="Detect",
            category=CATEGORY,
            description="Finds objects in pictures: boxes in pixels with label and score, the best first.",
            search_aliases=["compinv", "object detection", "find objects", "bounding box", "BOUNDING_BOX", "bbox"],
            has_intermediate_output=True,
            inputs=[
                Detector.Input("detector", tooltip="From Load Detector."),
                io.Image.Input("image", tooltip="Pictures of any size in pixels; each is looked at by itself."),
            ],
            outputs=[
                io.BoundingBox.Output(
                    display_name="bboxes",
                    tooltip="One list of boxes per picture. For Layout From Boxes and Draw BBoxes.",
                )
            ],
        )

    @classmethod
    @remarked
    def execute(cls, detector, image) -> io.NodeOutput:
        height, width = image.shape[1:3]
        found = detector.detect(image)
        if not any(found):
            remark("Detect: nothing was found; lower `threshold` of Load Detector, or take another detector.")
        return io.NodeOutput(detections_to_bounding_boxes(found, width, height))


NODES = [LoadDetector, Detect]
