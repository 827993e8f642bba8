"""A training as its node shows it, on the real server: text, live events, the pack's own address, saved steps."""

from __future__ import annotations

import io
import json
import struct
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from support import host
from support.models.training_case import Loaded, short_tuning, tune
from support.server import ComfyServer

Prompt = dict[str, dict[str, Any]]
# Of the host's binary messages.
TEXT = 3


def training_prompt(**settings: Any) -> Prompt:
    inputs = {
        "model": ["load", 0], "clip": ["load", 1], "vae": ["load", 2], "images": ["photos", 0],
        "anchors": ["anchors", 0], "name": "live-cat", "superclass": "cat", "init_word": "", "num_vectors": 1,
        "steps": 3, "batch_size": 1, "learning_rate": 0.005, "anchor_weight": 0.95, "max_active_anchors": 4,
        "recode_every": 1, "sparse_coder": "nn_omp", "anchor_reduction": "seq_mean", "template": "object",
        "preview_every": 0, "preview_prompt": "a photo of {}", "save_every": 1, "resume": True, "seed": 0,
        "hold": "radius and anchor loss",
    }  # fmt: skip
    return {
        "load": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny.safetensors"}},
        "photos": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 2, "color": 0}},
        "anchors": {
            "class_type": "CompInvLoadAnchors",
            "inputs": {"clip": ["load", 1], "vocabulary": "none", "extra_words": "dog, teddy bear"},
        },
        "7:5": {"class_type": "CompInvTrainConcept", "inputs": {**inputs, **settings}},
    }


def texts(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(node, text) of each progress text."""
    found = []
    for message in (event["data"] for event in events if event["type"] == "preview"):
        kind, length = struct.unpack(">II", message[:8])
        if kind == TEXT:
            found.append((message[8 : 8 + length].decode(), message[8 + length :].decode()))
    return found


def word(server: ComfyServer, name: str) -> tuple[torch.Tensor, dict[str, str]]:
    with safe_open(server.base / "models" / "embeddings" / f"{name}.safetensors", "pt") as file:
        return file.get_tensor(f"<{name}>"), file.metadata()


def shown(server: ComfyServer, **question: Any) -> dict[str, Any]:
    return server.post("/compinv/run", {"method": "textual inversion", **question})


@pytest.fixture(scope="module")
def heard(server: ComfyServer) -> list[dict[str, Any]]:
    """What a client hears of a training of three steps with a preview of the second, and its result as the last."""
    with server.events() as events:
        result = server.run(training_prompt(preview_every=2))
    assert result.ok, result
    return [*events, {"type": "result", "data": result.outputs["7:5"]["text"][0]}]


def test_the_text_under_the_node_tells_how_it_stands(heard: list[dict[str, Any]]) -> None:
    told = texts(heard)
    assert {node for node, _ in told} == {"7:5"}
    last = told[-1][1].splitlines()
    assert last[0] == "Training: 3 of 3"
    assert last[1].startswith("loss ") and "reconstruction " in last[1] and "anchor " in last[1]
    assert last[2].startswith("anchors cat ") and " of 0.50 allowed, composition " in last[3]


def test_memory_and_files_are_told_before_the_first_step(heard: list[dict[str, Any]], server: ComfyServer) -> None:
    (before,) = (text for _, text in texts(heard) if "needs about" in text)
    assert before.startswith("Training: 0 of 3") and "free on cpu" in before
    told = heard[-1]["data"]
    assert "needs about" in told and told in server.log
    for place in ("output/compinv/runs/live-cat", "models/embeddings/live-cat.safetensors"):
        assert str(server.base / place) in told


def test_the_panel_hears_it_live(heard: list[dict[str, Any]]) -> None:
    events = [event["data"] for event in heard if event["type"] == "compinv.training"]
    assert {event["node"] for event in events} == {"7:5"} and {event["run"] for event in events} == {"live-cat"}
    live = [event for event in events if event["running"] and event["curves"]]
    assert live and live[0]["text"].startswith("Training: ") and not events[-1]["running"]


def test_a_run_is_shown_from_its_folder_also_after_a_restart(server: ComfyServer, heard: list[dict[str, Any]]) -> None:
    run = shown(server, name="live-cat")
    sent = [event["data"] for event in heard if event["type"] == "compinv.training"][-1]
    assert run == {name: value for name, value in sent.items() if name != "node"}
    curves = {curve["name"]: curve["points"] for curve in run["curves"]}
    assert set(curves) == {"loss", "reconstruction", "anchor", "distance", "composition"}
    assert [step for step, _ in curves["loss"]] == [1, 2, 3] and run["text"] == "Finished: 3 steps"
    assert [saved["step"] for saved in run["saved"]] == [1, 2, 3]
    assert run["saved"][0]["picture"] is None and run["saved"][1]["picture"] == run["saved"][2]["picture"]
    query = urllib.parse.urlencode(run["saved"][1]["picture"])
    with urllib.request.urlopen(f"{server.url}/view?{query}") as answer:
        assert Image.open(io.BytesIO(answer.read())).size == (64, 64)
    (folder,) = (server.base / "output" / "compinv" / "runs").glob("live-cat")
    (folder / "curves.json").write_text("[")
    assert shown(server, name="live-cat")["curves"] == []


def test_a_damaged_state_is_shown_as_such_and_can_be_begun_anew(server: ComfyServer) -> None:
    assert server.run(training_prompt(name="damaged", steps=2)).ok
    state = server.base / "output" / "compinv" / "runs" / "damaged" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    told = shown(server, name="damaged")
    assert "turn `resume` off to begin anew" in told["text"] and told["saved"] == []
    refused = server.run(training_prompt(name="damaged", steps=3))
    assert "turn `resume` off to begin anew" in refused.error
    assert server.run(training_prompt(name="damaged", steps=2, resume=False)).ok
    assert shown(server, name="damaged")["text"] == "Finished: 2 steps"


@pytest.mark.parametrize(
    "question", [{"name": "../live-cat"}, {"name": "live-cat/.."}, {"name": 3}, {"name": "a", "method": "../.."}]
)
def test_a_question_never_leaves_the_folder(server: ComfyServer, question: dict[str, Any]) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        shown(server, **question)
    assert refused.value.code == 400 and "name" in json.load(refused.value)["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[1]"])
def test_a_question_is_a_json_object(server: ComfyServer, body: bytes) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{server.url}/compinv/run", body))
    assert refused.value.code == 400 and json.load(refused.value)["error"].endswith("is a JSON object.")


def test_of_what_was_never_trained_nothing_is_shown(server: ComfyServer) -> None:
    nothing = {"running": False, "text": "", "curves": [], "saved": []}
    assert shown(server, name="never") == {"run": "never", **nothing}
    assert shown(server, name="never", joint=True) == {"run": "never", **nothing}


def test_a_saved_step_is_the_result_without_a_step(server: ComfyServer, heard: list[dict[str, Any]]) -> None:
    whole, _ = word(server, "live-cat")
    with server.events() as events:
        picked = server.run(training_prompt(saved_step=2))
    assert picked.ok and "Step 2 of the saved training" in picked.outputs["7:5"]["text"][0], picked
    assert not [text for _, text in texts(events) if text.startswith("Training")]
    vectors, metadata = word(server, "live-cat")
    assert metadata["kept_step"] == "2" and not torch.equal(vectors, whole)
    assert server.run(training_prompt(steps=2, name="live-two")).ok
    assert torch.equal(vectors, word(server, "live-two")[0])
    # The run is still whole.
    assert server.run(training_prompt()).ok
    assert torch.equal(word(server, "live-cat")[0], whole)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"saved_step": 9}, "saved_step is 9, but of this training only 1, 2, 3 can be chosen"),
        ({"saved_step": 2, "seed": 7}, "the saved training of this name differs in seed"),
        ({"saved_step": 2, "name": "never"}, "no training of this name has been saved"),
    ],
)
def test_what_cannot_be_chosen_gets_a_sentence(
    server: ComfyServer, heard: list[dict[str, Any]], settings: dict[str, Any], sentence: str
) -> None:
    result = server.run(training_prompt(**settings))
    assert sentence in result.error and result.error.count(". ") == 0 and result.error_type.endswith("UserError")


def test_a_step_that_is_told_twice_has_one_picture() -> None:
    """As when another step's word becomes the result in the end."""
    host.start()
    from compinv_core.host.progress import with_previews
    from compinv_core.training.events import Event

    heard: list[bool] = []
    picture = Image.new("RGB", (8, 8))
    sink = with_previews(2, lambda: picture, lambda event: heard.append(event.picture is picture))
    for step in (0, 1, 2, 3, 4, 4):
        sink(Event("training", step, 4))
    assert heard == [False, False, True, False, True, False]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("settings", [{}, {"train_rank": 2}])
def test_a_saved_step_of_a_trained_model_is_its_word_and_its_weights(
    loaded: Loaded, tmp_path: Path, settings: dict[str, Any]
) -> None:
    def case(**more: Any) -> Any:
        return short_tuning("custom_diffusion", prior_weight=0.0, **settings, **more)

    tune(loaded, case(steps=2), run_dir=tmp_path)
    picked = tune(loaded, case(steps=2, saved_step=1), run_dir=tmp_path)
    whole = tune(loaded, case(steps=1))
    assert torch.equal(picked.concepts[0].vectors, whole.concepts[0].vectors)
    assert picked.history["loss"] == whole.history["loss"] and picked.lora.keys() == whole.lora.keys()
    assert picked.lora and all(torch.equal(picked.lora[name], value) for name, value in whole.lora.items())
