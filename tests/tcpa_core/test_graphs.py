"""Recorded steps and compiled blocks train what plain steps train."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tcpa_core import plugins
from tcpa_core.chain import method_class
from tcpa_core.config import METHODS, TrialConfig
from tcpa_core.data.base import ImageStore, Split
from tcpa_core.errors import ConfigError
from tcpa_core.methods import damvp
from tcpa_core.model import blocks
from tcpa_core.model.attention import Visibility
from tcpa_core.model.backbone import Backbone
from tcpa_core.training import pack as pack_module
from tcpa_core.training import probe, rehearsal
from tcpa_core.training.graphs import CudaRecorder, Execution, StepGraphs
from tcpa_core.training.image_source import ImageSource
from tcpa_core.training.member import Member
from tcpa_core.training.pack import Pack
from tcpa_core.training.rehearsal import Rehearsal
from tcpa_core.training.trial_data import TrialData
from tests.tcpa_core.replay import Replayed
from tests.tcpa_core.tiny import NUM_CLASSES, tiny_backbone, trained, trial

EPOCHS = 3
SETTINGS: dict[str, dict[str, Any]] = {
    "damvp": {"damvp__max_clusters": 2},
    "e2vpt": {"e2vpt__num_segments": 4},
    "lion": {"lion__bottleneck": 8},
    "sa2vp": {"sa2vp__inner_dim": 4},
    "tcpa": {"tcpa__random_epochs": 1, "tcpa__num_cls_prompts": 4, "tcpa__num_image_prompts": 6,
             "tcpa__top_k_cls": 2, "tcpa__top_k_image": 3},
}  # fmt: skip
OTHERS: dict[str, dict[str, Any]] = {
    "tcpa": {"tcpa__num_cls_prompts": 3, "tcpa__num_image_prompts": 5, "tcpa__random_epochs": 2},
    "vpt": {"vpt__num_prompts": 4},
    "cvpt": {"cvpt__num_prompts": 4},
}
"""Of a second member."""


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone(dtype=torch.float32)


@pytest.fixture(scope="module")
def data(backbone: Backbone) -> TrialData:
    """28 images: three batches of 8 and one of 4."""
    config, side = trial(["linear"]).data, backbone.img_size
    random = np.random.default_rng(0)
    mean, std = backbone.norm_stats(config.norm_stats)
    sources = []
    for count in (28, 5, 5):
        size = 3 * side**2
        store = ImageStore(
            random.integers(0, 256, count * size, dtype=np.uint8),
            np.arange(count, dtype=np.int64) * size,
            np.full(count, side, np.int64),
            np.full(count, side, np.int64),
            *np.zeros((3, count), np.uint8),
        )
        labels = (np.arange(count) % NUM_CLASSES).astype(np.int64)
        split = Split(images=store, labels=labels, paths=tuple(map(str, range(count))))
        sources.append(ImageSource(split, config, side, mean, std, "cpu"))
    names = tuple(map(str, range(NUM_CLASSES)))
    return TrialData(*sources, class_names=names, fingerprint="made")


def _train(
    backbone: Backbone, data: TrialData, configs: Sequence[TrialConfig], execution: Execution
) -> list[Member]:
    pack = Pack(backbone, data)
    pack.execution = execution
    members = [pack.new_member(str(m), config) for m, config in enumerate(configs)]
    for _ in range(EPOCHS):
        members = trained(pack.run_epoch(members))
    return members


def _configs(method: str) -> list[TrialConfig]:
    base = {"train__batch_size": 8, "train__epochs": 10, **SETTINGS.get(method, {})}
    configs = [trial([method], **base)]
    if method in OTHERS:
        configs.append(trial([method], seed=1, **{**base, **OTHERS[method]}, optim__lr=0.01))
    return configs


RECORDABLE = [n for n in plugins.names(METHODS) if method_class(n).is_recordable]


@pytest.mark.parametrize("method", RECORDABLE)
def test_a_recorded_step_trains_what_a_plain_one_trains(
    method: str, backbone: Backbone, data: TrialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit: nothing that changes from step to step is a number that the host knows alone."""
    monkeypatch.setattr(damvp, "cluster", lambda features, threshold, most: features[:2])
    recorder = Replayed()
    monkeypatch.setattr(pack_module, "CudaRecorder", lambda device: recorder)
    configs = _configs(method)
    plain = _train(backbone, data, configs, "eager")
    again = _train(backbone, data, configs, "graph")
    assert recorder.replayed > recorder.recorded > 0
    for a, b in zip(plain, again, strict=True):
        assert [r.train_loss for r in a.reports] == [r.train_loss for r in b.reports]
        assert [r.val_loss for r in a.reports] == [r.val_loss for r in b.reports]
        assert all(torch.equal(a.state[name], b.state[name]) for name in a.state)
        assert all(torch.equal(a.moments[name], b.moments[name]) for name in a.moments)


def test_what_cannot_be_recorded_says_so(
    backbone: Backbone, data: TrialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_module, "CudaRecorder", lambda device: Replayed())
    others = set(plugins.names(METHODS)) - set(RECORDABLE)
    assert others == {"lion"}
    with pytest.raises(AssertionError, match="_local_scalar_dense"):
        _train(backbone, data, _configs("lion"), "graph")


def test_a_step_is_recorded_when_its_shapes_come_up_again() -> None:
    recorder = Replayed()
    graphs = StepGraphs(recorder)
    total = torch.zeros(2)

    def step(x: torch.Tensor) -> torch.Tensor:
        total.add_(x.sum())
        return total * 2

    kept = [graphs.run("a", [torch.ones(3) * i], step) for i in range(4)]
    assert (recorder.warmed, recorder.recorded, recorder.replayed) == (1, 1, 3)
    assert [found[0].item() for found in kept] == [0, 6, 18, 36]  # no result is overwritten
    for kind, x in (("b", torch.ones(3)), ("a", torch.ones(4)), ("a", torch.ones(3).double())):
        graphs.run(kind, [x], step)
    assert (recorder.warmed, recorder.recorded, recorder.replayed) == (4, 1, 3)


def test_a_step_that_asks_for_a_number_cannot_be_recorded() -> None:
    """So that the tests above would find a step that waits for the device."""
    with pytest.raises(AssertionError, match="_local_scalar_dense"):
        Replayed().record(lambda: torch.ones(2) * torch.ones(1).item())


def test_graphs_are_recorded_aside_and_into_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    class Stream:
        def __init__(self, device: Any = None, name: str = "aside") -> None:
            self.device, self.name = device, name

        def wait_stream(self, other: "Stream") -> None:
            told.append((self.name, "waits for", other.name))

    class Graph:
        def replay(self) -> None:
            told.append("replay")

    @contextmanager
    def noted(*args: Any, **kwargs: Any) -> Iterator[None]:
        told.append({k: getattr(v, "name", v) for k, v in kwargs.items()} or args[0].name)
        yield

    for name, fake in {
        "Stream": Stream, "CUDAGraph": Graph, "graph": noted, "stream": noted,
        "current_stream": lambda device: Stream(device, "current"),
        "graph_pool_handle": lambda: "pool",
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, fake)
    recorder = CudaRecorder(torch.device("cuda", 0))
    assert recorder.warm(lambda: torch.ones(1)) == 1
    assert told == [("aside", "waits for", "current"), "aside", ("current", "waits for", "aside")]
    told.clear()
    replay, result = recorder.record(lambda: torch.ones(1))
    assert result == 1
    assert told == [{"pool": "pool", "stream": "aside", "capture_error_mode": "thread_local"}]
    replay()
    assert told[1:] == ["replay"]


def _blocks_output(backbone: Backbone, prompts: torch.Tensor) -> torch.Tensor:
    """What the functions of a block make of two members' tokens, with prompts and without."""
    tokens = torch.randn(2, 3, 17, 32, generator=torch.Generator().manual_seed(0))
    used = torch.rand(2, 1, 17, prompts.shape[2], generator=torch.Generator().manual_seed(1)) < 0.5
    for rows, block in zip((None, 1), backbone.blocks, strict=True):
        (keys,) = blocks.PromptProjections([block])(prompts[None], None)
        seen = Visibility(used[..., : tokens.shape[2], :])
        tokens = blocks.prompted_block(block, tokens, keys, seen, backend=None, rows=rows)
        tokens = blocks.plain_block(block, tokens)
        h = block.norm1(tokens.flatten(0, 1))
        tokens = tokens + blocks.self_attention(block, h).view_as(tokens)
    return tokens


def test_compiled_blocks_equal_plain_ones(backbone: Backbone) -> None:
    prompts = torch.randn(2, 3, 5, 32, generator=torch.Generator().manual_seed(2))
    found = []
    for is_on in (False, True):
        leaf = prompts.clone().requires_grad_()
        with blocks.compiled_blocks(is_on, backend="aot_eager"):
            out = _blocks_output(backbone, leaf)
        out.square().sum().backward()
        assert leaf.grad is not None
        found.append((out.detach(), leaf.grad))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert compiled_calls() > 0


def compiled_calls() -> int:
    """Operations that torch.compile has taken in so far in this process."""
    from torch._dynamo.utils import counters

    return counters["stats"]["calls_captured"]


def test_nothing_is_compiled_outside(backbone: Backbone) -> None:
    before = compiled_calls()
    with blocks.compiled_blocks(False):
        _blocks_output(backbone, torch.zeros(2, 3, 6, 32))
    assert compiled_calls() == before


@pytest.mark.parametrize(
    ("graph", "compiled", "best"),
    [
        ((1.0, 0.5, 0.1), (1.0, 0.4, 0.1), "compiled"),  # loss, seconds of a step, to prepare
        ((1.0, 0.5, 0.1), (1.1, 0.4, 0.1), "graph"),  # another loss
        ((1.0, 0.5, 0.1), (float("nan"), 0.4, 0.1), "graph"),
        ((1.0, 0.5, 0.1), (1.0, 0.4, 50.0), "graph"),  # compiling takes longer than it saves
        ((1.0, 0.99, 0.0), (1.1, 0.4, 0.1), "eager"),  # hardly faster
    ],
)
def test_the_fastest_of_equal_ways_is_chosen_where_a_user_allows_it(
    graph: tuple[float, ...],
    compiled: tuple[float, ...],
    best: Execution,
    backbone: Backbone,
    data: TrialData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = {"eager": (1.0, 1.0, 0.0), "graph": graph, "compiled": compiled}

    def rehearse(pack: Pack, configs: Sequence[TrialConfig], way: Execution) -> Rehearsal:
        loss, step_s, prepare_s = made[way]
        return Rehearsal(losses=torch.full((4, 1), loss), step_s=step_s, prepare_s=prepare_s)

    monkeypatch.setattr(rehearsal, "rehearse", rehearse)
    pack = Pack(backbone, data)
    monkeypatch.setattr(pack, "device", torch.device("cuda", 0))
    configs = [trial(["tcpa"], train__batch_size=8, train__epochs=10)]  # 40 steps
    assert rehearsal.best_execution(pack, configs) == "eager"
    monkeypatch.setenv("TCPA_STEP", "auto")
    assert rehearsal.best_execution(pack, configs) == best
    noisy = [trial(["tcpa"], train__batch_size=8, train__epochs=10, train__drop_path=0.1)]
    assert rehearsal.best_execution(pack, noisy) == ("eager" if best == "eager" else "graph")
    solved = [trial(["lion"], train__batch_size=8, train__epochs=10)]
    assert rehearsal.best_execution(pack, solved) == "eager"
    monkeypatch.setattr(pack, "device", torch.device("cpu"))
    assert rehearsal.best_execution(pack, configs) == "eager"
    monkeypatch.setenv("TCPA_STEP", "fast")
    with pytest.raises(ConfigError, match="TCPA_STEP='fast' is not possible; set it to eager or"):
        rehearsal.best_execution(pack, configs)


def test_a_rehearsal_leaves_a_pack_as_it_was(backbone: Backbone, data: TrialData) -> None:
    configs = _configs("tcpa")
    pack = Pack(backbone, data)
    members = [pack.new_member(str(m), config) for m, config in enumerate(configs)]
    members = trained(pack.run_epoch(members))
    found = rehearsal.rehearse(pack, configs, "eager")
    assert found.losses.shape == (2 * 3, 2) and found.step_s > 0
    assert found.off_by(rehearsal.rehearse(pack, configs, "eager")) == 0
    alone = _train(backbone, data, configs, "eager")
    for _ in range(EPOCHS - 1):
        members = trained(pack.run_epoch(members))
    for a, b in zip(members, alone, strict=True):
        assert all(torch.equal(a.state[name], b.state[name]) for name in a.state)


def test_a_way_that_a_probe_has_chosen_is_kept_as_long_as_it_is_allowed(
    backbone: Backbone, data: TrialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "LARGEST", 2)
    monkeypatch.setattr(probe, "best_execution", lambda pack, configs: "graph")
    monkeypatch.setattr(probe, "allowed", lambda device, configs: ("graph", "compiled"))
    pack = Pack(backbone, data)
    (config, _) = _configs("vpt")
    assert probe.pack_size(pack, config, cache_dir=tmp_path).execution == "graph"
    found = probe.recorded_size(pack, config, cache_dir=tmp_path)
    assert found is not None and found.execution == "graph"
    monkeypatch.setattr(probe, "allowed", lambda device, configs: ())
    assert probe.recorded_size(pack, config, cache_dir=tmp_path) is None
    monkeypatch.setattr(probe, "best_execution", lambda pack, configs: "eager")
    assert probe.pack_size(pack, config, cache_dir=tmp_path).execution == "eager"
