"""Each mistake is said in a sentence, in the node's output; a right graph says nothing."""

from __future__ import annotations

import pytest

from support.server import ComfyServer
from support.templates import mistakes
from support.templates.graph import Prompt, changed


@pytest.fixture(scope="module")
def comfy(server: ComfyServer) -> ComfyServer:
    mistakes.write_inputs(server.base)
    return server


@pytest.mark.parametrize("name", mistakes.MISTAKES)
def test_a_mistake_is_said_on_its_node(comfy: ComfyServer, name: str) -> None:
    mistake = mistakes.MISTAKES[name]()
    result = comfy.run(mistake.prompt)
    assert result.ok, result
    (node,) = [key for key, each in mistake.prompt.items() if each["class_type"] == mistake.node]
    output = result.outputs[node]
    said = [sentence for sentence, _ in output["remarks"][0]]
    assert [sentence for sentence in said if mistake.sentence in sentence]
    assert mistake.sentence in comfy.log
    # What is known only while the model is sampled comes too late for the text.
    assert name in ("no step in range", "words too late") or set(output["text"]) >= set(said) - set(late(said))


def late(said: list[str]) -> list[str]:
    return [sentence for sentence in said if "of this sampler has no layout" in sentence]


def right_graphs() -> dict[str, Prompt]:
    second = changed(mistakes.guided(), CompInvApplyLayoutGuidance={"end_percent": 0.5})
    again = {**second["7"], "inputs": {**second["7"]["inputs"], "latent_image": ["7", 0], "denoise": 0.3}}
    passes = {**second, "10": again, "8": {**second["8"], "inputs": {"samples": ["10", 0], "vae": ["1", 2]}}}
    return {
        "guided": mistakes.guided(),
        "worded as trained": mistakes.guided("embedding:with-class cats, a ball", "embedding:with-class cats\na ball"),
        "alone": mistakes.guided("embedding:alone and a ball", "embedding:alone\na ball"),
        "an unguided second pass": passes,
        "photos": mistakes.trained("my-cat-1.png", "my-cat-2.png", "my-cat-3.png"),
    }


@pytest.mark.parametrize("name", right_graphs())
def test_a_right_graph_says_nothing(comfy: ComfyServer, name: str) -> None:
    result = comfy.run(right_graphs()[name])
    assert result.ok and result.remarks == [], result


def test_a_mistake_that_was_corrected_behind_the_node_is_said_no_more(comfy: ComfyServer) -> None:
    wrong = comfy.run(mistakes.guided(model=["1", 0], seed=5))
    assert wrong.remarks and not comfy.run(mistakes.guided(seed=5)).remarks
    assert comfy.run(mistakes.guided(model=["1", 0], seed=5)).remarks == wrong.remarks


def test_the_server_remembers_what_a_workflow_told(comfy: ComfyServer) -> None:
    body = {
        "prompt": mistakes.guided(model=["1", 0], seed=6),
        "client_id": comfy.client_id,
        "extra_data": {"extra_pnginfo": {"workflow": {"id": "a-workflow"}}},
    }
    result = comfy.wait(comfy.post("/prompt", body)["prompt_id"])
    told = comfy.post("/compinv/told", {"workflow": "a-workflow"})
    assert told["4"]["remarks"] == result.outputs["4"]["remarks"]
    assert comfy.post("/compinv/told", {"workflow": "another"}) == {}
