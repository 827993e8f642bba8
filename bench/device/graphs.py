"""The graphs that are measured, in API form; inputs that are not named stand at their defaults."""

from __future__ import annotations

from typing import Any

Graph = dict[str, dict[str, Any]]

TEXT, PHRASES = "a photo of a cat and a ball", "a cat\na ball"
TRAINERS = {
    "textual inversion": ("CompInvTrainConcept", 4),
    "Custom Diffusion": ("CompInvTrainCustomDiffusion", 2),
    "DreamBooth": ("CompInvTrainDreamBooth", 1),
}
"""Node and batch of each method."""


class Graphs:
    """Builds graphs for one server.

    Parameters
    ----------
    object_info : dict
        What the server says of its nodes, for their defaults.
    checkpoint, photo : str
        Names as the loaders know them.
    side : int
        Of pictures, in pixels.
    """

    def __init__(self, object_info: dict[str, Any], checkpoint: str, photo: str, side: int) -> None:
        self._info, self._checkpoint, self._photo, self._side = object_info, checkpoint, photo, side

    def sampling(self, run: int, guided: bool, steps: int, batch: int = 1, **settings: Any) -> Graph:
        """Stock sampling with CFG, measured from the empty latent to the samples; `run` makes it another one."""
        side = self._side
        left, right = (
            {"x": x, "y": side // 8, "width": side * 7 // 16, "height": side * 3 // 4} for x in (0, side // 2)
        )
        graph = self._loaded() | {
            "positive": self._node("CLIPTextEncode", clip=["model", 1], text=TEXT),
            "negative": self._node("CLIPTextEncode", clip=["model", 1], text="blurry"),
            "empty": self._node("EmptyLatentImage", width=side, height=side, batch_size=batch),
            "sampler": self._node(
                "KSampler", model=["model", 0], positive=["positive", 0], negative=["negative", 0],
                latent_image=["begin", 0], seed=run, steps=steps, cfg=7.5, sampler_name="dpmpp_2m",
            ),
            "saved": self._node("SaveLatent", samples=["sampler", 0], filename_prefix="bench"),
        }  # fmt: skip
        if guided:
            boxes = {"__value__": [[left, right]]}
            graph["layout"] = self._node(
                "CompInvLayoutFromBoxes", bboxes=boxes, phrases=PHRASES, width=side, height=side
            )
            graph["guidance"] = self._node(
                "CompInvApplyLayoutGuidance", model=["model", 0], clip=["model", 1], text=TEXT, layout=["layout", 0],
                **settings,
            )  # fmt: skip
            graph["sampler"]["inputs"] |= {"model": ["guidance", 0], "positive": ["guidance", 1]}
        prompt = ["guidance", 1] if guided else ["positive", 0]
        return graph | self._measured(["empty", 0], ["sampler", 0], run, prompt)

    def recorded(self, run: int, steps: int) -> Graph:
        """The guided sampling with its attention recorded and drawn."""
        graph = self.sampling(run, True, steps)
        graph["record"] = self._node(
            "CompInvRecordAttention", model=["guidance", 0], clip=["model", 1], text=TEXT, phrases=PHRASES
        )
        graph["sampler"]["inputs"]["model"] = ["record", 0]
        graph["show"] = self._node("CompInvShowAttention", attention=["record", 1], samples=["sampler", 0])
        graph["shown"] = self._node("PreviewImage", images=["show", 0])
        return graph

    def training(self, method: str, name: str, steps: int, run: int, **settings: Any) -> Graph:
        """A training on one photo, measured from the photo to the loss."""
        kind, batch = TRAINERS[method]
        settings = {"batch_size": batch, "save_every": 0, "resume": False, **settings}
        if method != "textual inversion":
            settings |= {"class_images": ["begin", 0], "num_class_images": 1}
        return self._loaded() | {
            "photo": self._node("LoadImage", image=self._photo),
            "train": self._node(
                kind, model=["model", 0], clip=["model", 1], vae=["model", 2], images=["begin", 0], name=name,
                superclass="cat", steps=steps, **settings,
            ),
        } | self._measured(["photo", 0], ["train", 1], run, ["model", 0])  # fmt: skip

    def detecting(self, run: int, path: str) -> Graph:
        """A DETR that finds things in the photo."""
        return {
            "photo": self._node("LoadImage", image=self._photo),
            "detector": self._node("CompInvLoadDetector", backend="detr", path=path, threshold=0.0),
            "detect": self._node("CompInvDetect", detector=["detector", 0], image=["begin", 0]),
        } | self._measured(["photo", 0], ["detect", 0], run, ["detector", 0])

    def _loaded(self) -> Graph:
        return {"model": self._node("CheckpointLoaderSimple", ckpt_name=self._checkpoint)}

    def _measured(self, begin: list, end: list, run: int, after: list) -> Graph:
        return {
            "begin": self._node("BenchBegin", value=begin, after=after, run=run),
            "end": self._node("BenchEnd", value=end),
        }

    def _node(self, kind: str, **inputs: Any) -> dict[str, Any]:
        values = {}
        for name, declared in self._info[kind]["input"].get("required", {}).items():
            options = declared[1] if len(declared) > 1 else {}
            if "default" in options:
                values[name] = options["default"]
            else:
                choices = declared[0] if isinstance(declared[0], list) else options.get("options", [])
                if choices:
                    values[name] = choices[0]
        return {"class_type": kind, "inputs": values | inputs}
