"""Settings, memory and disk of the methods that train the model, and the optimisers to choose from."""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from compinv_core.basics.atomic_file import replacing
from compinv_core.basics.errors import UserError
from compinv_core.basics.settings import fingerprint
from compinv_core.learning.concept import Concept, check_distinct_names
from compinv_core.learning.settings import InversionConfig
from compinv_core.learning.tuning_settings import CustomDiffusionConfig, DreamBoothConfig
from compinv_core.training.low_rank import LowRank
from compinv_core.training.memory import SDXL_ACTIVATIONS, activation_bytes, estimate_memory
from compinv_core.training.optimizers import check_optimizer, make_optimizer
from compinv_core.training.run_folder.state import PREVIOUS_FILE, STATE_FILE, RunStore


def test_the_papers_defaults() -> None:
    custom, dreambooth = CustomDiffusionConfig(), DreamBoothConfig()
    assert (custom.steps, custom.batch_size, custom.learning_rate, custom.anchor_weight) == (500, 2, 2e-5, 0.95)
    assert (dreambooth.steps, dreambooth.batch_size, dreambooth.anchor_weight) == (800, 1, 0.6)
    assert custom.num_class_images == dreambooth.num_class_images == 200
    assert custom.class_prompt == "" and custom.prior_weight == 1.0


def test_memory_options_continue_a_run_and_methods_do_not() -> None:
    plain = fingerprint(DreamBoothConfig())
    assert plain == fingerprint(DreamBoothConfig(gradient_checkpointing=True, lora_rank=4))
    assert plain != fingerprint(DreamBoothConfig(optimizer="adafactor"))
    assert plain != fingerprint(CustomDiffusionConfig())


def test_a_rank_of_the_training_is_another_training_and_none_is_the_one_from_before() -> None:
    plain = fingerprint(DreamBoothConfig())
    assert plain == fingerprint(DreamBoothConfig(train_rank=0)) and DreamBoothConfig().low_rank is None
    assert fingerprint(DreamBoothConfig(train_rank=8)) == {**plain, "train_rank": "8"}
    assert CustomDiffusionConfig(train_rank=8, seed=5).low_rank == LowRank(8, 5)
    assert InversionConfig().low_rank is None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"prior_weight": -1.0}, "prior_weight is -1.0"),
        ({"num_class_images": 0}, "num_class_images is 0"),
        ({"gradient_accumulation": 0}, "gradient_accumulation is 0"),
        ({"token_learning_rate": float("nan")}, "token_learning_rate is nan"),
        ({"optimizer": "sgd"}, 'optimizer is "sgd"'),
        ({"lora_rank": 0}, "lora_rank is 0"),
        ({"train_rank": -1}, "train_rank is -1; give a whole number, 0 to 4096"),
        ({"train_rank": 2.5}, "train_rank is 2.5"),
    ],
)
def test_bad_settings_get_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        DreamBoothConfig(**settings)


def test_concepts_that_are_learned_together_have_distinct_names() -> None:
    photo = torch.rand(1, 64, 64, 3)
    first = Concept.to_learn({"name": " a ", "superclass": "tabby  cat"}, photo)
    second = Concept.to_learn({"name": "b", "superclass": "dog"}, photo)
    assert first.name == "a" and first.init_word == "tabby cat"
    check_distinct_names([first, second])
    with pytest.raises(UserError, match='Two concepts have the name "A"'):
        check_distinct_names([first, second, Concept.to_learn({"name": "A", "superclass": "cat"}, photo)])


def test_memory_by_hand() -> None:
    # 1e9 numbers in half precision: copies 4, casts and their gradients 4; gradients 4; AdamW 8; two of the largest.
    estimate = estimate_memory(10**9, 10**6, "adamw", 2, 0.5e9, 1e9)
    assert (estimate.weights, estimate.gradients, estimate.activations) == (8.5e9, 4e9, 1e9)
    assert estimate.optimizer == 8e9 + 8e6
    assert estimate.state_file == pytest.approx(12.008e9)
    estimate.check(22e9, "cuda:0", "use less")
    with pytest.raises(UserError, match=r"about 21\.5 GB \(weights 8\.5 GB, gradients 4\.0 GB, optimiser 8\.0 GB, "
                       r"activations 1\.0 GB\), but 21\.0 GB are free on cuda:0; use less\."):  # fmt: skip
        estimate.check(21e9, "cuda:0", "use less")
    assert estimate_memory(10**9, 10**6, "adafactor", 4, 0, 0).total < 0.6 * estimate.total


def test_activations_by_hand() -> None:
    assert activation_bytes((2, 4, 64, 64), 2, checkpointing=False) == 2 * 64 * 64 * 200_000 * 2
    assert activation_bytes((2, 4, 64, 64), 4, checkpointing=True) == 2 * 64 * 64 * 50_000 * 4
    assert activation_bytes((1, 4, 128, 128), 2, True, SDXL_ACTIVATIONS) == 128 * 128 * 56_000 * 2


def test_eight_bits_need_a_card() -> None:
    with pytest.raises(UserError, match="trains on cpu; choose adafactor"):
        check_optimizer("adamw_8bit", torch.device("cpu"))
    check_optimizer("adafactor", torch.device("cpu"))


def test_adafactor_factors_its_states_and_has_the_rate_given() -> None:
    matrix = torch.nn.Parameter(torch.zeros(40, 30))
    optimizer = make_optimizer("adafactor", [{"params": [matrix], "lr": 0.01}])
    matrix.grad = torch.ones(40, 30)
    optimizer.step()
    # An even gradient is divided by its own size, and clipping at root mean square 1 leaves it.
    assert torch.allclose(matrix, torch.full((40, 30), -0.01), rtol=1e-3)
    state = optimizer.state[matrix]
    assert sum(value.numel() for value in state.values() if isinstance(value, torch.Tensor)) < 100


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_weights_decay_by_their_rate_times_the_decay(name: str) -> None:
    matrix = torch.nn.Parameter(torch.full((4, 4), 2.0))
    optimizer = make_optimizer(name, [{"params": [matrix], "lr": 0.1}], weight_decay=0.01)
    matrix.grad = torch.zeros(4, 4)
    optimizer.step()
    # Without a gradient: 2 - .1 · .01 · 2.
    assert torch.allclose(matrix, torch.full((4, 4), 1.998), rtol=1e-6)


def test_a_state_that_cannot_fit_is_refused(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs" / "x", {}, {})
    store.check_room(1e3, continues=False)
    with pytest.raises(UserError, match=r"needs 2000000\.0 GB, but \d+\.\d GB are free"):
        store.check_room(1e15, continues=False)
    with pytest.raises(UserError, match=r"needs 2000002\.0 GB"):
        store.check_room(1e15, continues=False, best_bytes=1e9)


def test_only_what_is_replaced_makes_room(tmp_path: Path) -> None:
    store, size = RunStore(tmp_path, {}, {}), 10**15

    def needed(continues: bool) -> float:
        with pytest.raises(UserError, match="are free") as refused:
            store.check_room(size, continues)
        return float(re.search(r"needs (\d+)", str(refused.value))[1]) * 1e9  # type: ignore[index]

    # Files with a hole: large to look at, nothing on the disk.
    for name, length in ((PREVIOUS_FILE, 10**12), (STATE_FILE, 3 * 10**12)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(length)
        if name == PREVIOUS_FILE:
            assert needed(continues=False) == 2 * size
    assert needed(continues=True) == 2 * size - 3 * 10**12
    assert needed(continues=False) == 2 * size - 10**12


def test_a_full_disk_gets_a_sentence_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=r"The disk is full: file\.txt"), replacing(path) as temporary:
            temporary.write_bytes(bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    with pytest.raises(OSError, match="else"), replacing(path):
        raise OSError("something else")


def test_a_replaced_file_can_be_read_by_whom_any_new_file_can(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    with replacing(tmp_path / "tensors.safetensors") as temporary:
        save_file({"a": torch.zeros(1)}, temporary)
    assert (tmp_path / "tensors.safetensors").stat().st_mode == usual.stat().st_mode


def test_runs_of_earlier_versions_are_known_again() -> None:
    # As 0.1.0 wrote them down; a key or a value more, less or other would refuse to go on with its runs.
    textual = {
        "batch_size": "4", "learning_rate": "0.005", "anchor_weight": "0.95", "max_active_anchors": "4",
        "recode_every": "100", "sparse_coder": "'nn_omp'", "anchor_reduction": "'seq_mean'", "template": "'object'",
        "templates": "()", "seed": "0", "preset": "'paper'", "recode_momentum": "0.5", "superclass_share": "0.25",
    }  # fmt: skip
    tuning = {
        "template": "'object with class'", "token_learning_rate": "0.0", "prior_weight": "1.0", "class_prompt": "''",
        "num_class_images": "200", "gradient_accumulation": "1", "optimizer": "'adamw'",
    }  # fmt: skip
    custom = {"batch_size": "2", "learning_rate": "2e-05"}
    dreambooth = {"batch_size": "1", "learning_rate": "1e-05", "anchor_weight": "0.6"}
    assert fingerprint(InversionConfig(template="object")) == textual
    assert fingerprint(CustomDiffusionConfig()) == {**textual, **tuning, **custom}
    assert fingerprint(DreamBoothConfig()) == {**textual, **tuning, **dreambooth}
    # What came later counts where it is used.
    held = fingerprint(InversionConfig(template="object", hold="radius", radius=0.3))
    assert held == {**textual, "hold": "'radius'", "radius": "0.3"}
    # Which step is the result is no other training.
    assert fingerprint(CustomDiffusionConfig(saved_step=3)) == {**textual, **tuning, **custom}
