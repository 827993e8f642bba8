"""How a word in training shares attention with other nouns, in the real host."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from support.models.training_case import Loaded, short_config, train

pytestmark = pytest.mark.usefixtures("one_thread")
NOUNS = ("dog", "fire hydrant")


@pytest.fixture(scope="module")
def opened(loaded: Loaded) -> Any:
    from compinv_core.host.family import Family
    from compinv_core.host.learning.composing import CompositionGauge
    from compinv_core.host.learning.session import training_session

    model, clip, _ = loaded
    family = Family.of("test", model, clip)
    with training_session(model, clip, (1, 4, 8, 8)) as (session, clip):

        def gauge(vectors: int, with_class: bool = False, batch: int = 4) -> CompositionGauge:
            return CompositionGauge(session, clip, family, "cat", vectors, with_class, NOUNS, (8, 8), batch)

        yield gauge


def test_the_noun_itself_scores_one(opened: Any, loaded: Loaded) -> None:
    from compinv_core.host.learning.concepts import initial_vectors

    found = opened(1)(initial_vectors(loaded[1], "cat", 1))
    assert found.score == pytest.approx(1.0, abs=1e-4) and found.takes == pytest.approx(1.0, abs=1e-4)


def test_the_batch_does_not_matter(opened: Any, loaded: Loaded) -> None:
    from compinv_core.host.learning.concepts import initial_vectors

    vectors = initial_vectors(loaded[1], "cat", 2) + torch.randn(2, 768, generator=torch.Generator().manual_seed(1))
    at_once, one_by_one = opened(2, True, 8)(vectors), opened(2, True, 1)(vectors)
    assert at_once.score == pytest.approx(one_by_one.score, rel=1e-4) and at_once.score < 0.999


def test_it_agrees_with_attention_that_the_host_recorded(opened: Any, loaded: Loaded) -> None:
    """Of the class noun beside its neighbours, through the host's own tokenizer and a whole pass of the UNet."""
    from compinv_core.host.learning.composing import _SEED, _TIMES
    from compinv_core.spatial.attention import attention_weights

    model, clip, _ = loaded
    gauge = opened(1)
    network, sampling = model.model.diffusion_model, model.get_model_object("model_sampling")
    noise = torch.randn(len(_TIMES), 4, 8, 8, generator=torch.Generator().manual_seed(_SEED))
    looks: list[torch.Tensor] = []

    def patch(n: Any, context: Any, value: Any, extra: Any) -> Any:
        if extra["block"] in gauge._blocks:
            kind, number = extra["block"]
            layers = network.middle_block if kind == "middle" else network.output_blocks[number]
            attention: Any = layers[1].transformer_blocks[0].attn2
            looks.append(attention_weights(attention.to_q(n), attention.to_k(context), attention.heads).mean((1, 2)))
        return n, context, value

    for row, noun in enumerate(NOUNS):
        tokens = clip.tokenize(f"cat and a {noun}")
        end = [token for token, _ in tokens["l"][0]].index(clip.tokenizer.clip_l.end_token)
        context = clip.encode_from_tokens_scheduled(tokens)[0][0]
        shares = []
        with torch.inference_mode(False), torch.no_grad():
            for time, each in zip(_TIMES, noise, strict=True):
                looks.clear()
                step = int(time * len(sampling.sigmas))
                sigma = sampling.sigmas[step : step + 1]
                latent = sampling.calculate_input(sigma, sampling.noise_scaling(sigma, each[None], torch.zeros(1)))
                network(
                    latent, sampling.timestep(sigma).float(), context=context.clone(),
                    transformer_options={"patches": {"attn2_patch": [patch]}},
                )  # fmt: skip
                shares.append(torch.stack(looks).mean(0)[0])
        mean = torch.stack(shares).mean(0)
        expected = torch.stack([mean[1], mean[4:end].mean()])
        assert torch.allclose(gauge._class_noun[row], expected, rtol=1e-4)


def test_a_training_records_its_curve(loaded: Loaded) -> None:
    result = train(loaded, short_config(steps=3, batch_size=2))
    assert len(result.loss_map["composition"]) == len(result.loss_map["loss"]) == 3
    told = json.loads(result.concepts[0].metadata["composition"])
    assert list(told) == ["0", "3"] and 0 < told["3"] <= 1 and result.concepts[0].metadata["kept_step"] == "3"


def test_a_word_too_long_to_have_a_neighbour_is_learned_all_the_same(loaded: Loaded, caplog: Any) -> None:
    settings: Any = {"templates": ("{}",), "num_vectors": 74}
    result = train(loaded, short_config(steps=1, **settings))
    assert "composition" not in result.loss_map and "not measured" in caplog.text
    with pytest.raises(Exception, match="composition_nouns"):
        train(loaded, short_config(steps=1, keep="best composition", **settings))


def test_an_unknown_noun_is_refused(loaded: Loaded) -> None:
    with pytest.raises(Exception, match=r"composition_nouns"):
        train(loaded, short_config(steps=1, composition_nouns=("xqzvvkj",)))
