"""A member of a pack trains exactly as it would alone, whoever sits beside it, joins or leaves."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tcpa_core.config import ADDED, TrialConfig
from tcpa_core.errors import CheckpointError
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.record.values import EpochReport
from tcpa_core.settings import BackboneConfig
from tcpa_core.training import commands
from tcpa_core.training.checkpoint import load_checkpoint, save_checkpoint
from tcpa_core.training.commands import Extend, Stop, Submit
from tcpa_core.training.divergence import Diverged
from tcpa_core.training.evaluation import Evaluation, Scores
from tcpa_core.training.image_source import ImageSource
from tcpa_core.training.member import Member
from tcpa_core.training.pack import Pack
from tcpa_core.training.run_trial import run_trial
from tcpa_core.training.saved_member import restore_member, save_member
from tcpa_core.training.trained import load_trained
from tcpa_core.training.trial_data import TrialData, load_trial_data
from tcpa_core.training.worker import Worker
from tests.tcpa_core.tiny import trained

BASE = {"data.name": "folder", "train.batch_size": 8, "train.epochs": 3, "optim.lr": 0.01}

TCPA = [
    {"tcpa.num_cls_prompts": 3, "tcpa.num_image_prompts": 5, "tcpa.top_k_cls": 1,
     "tcpa.top_k_image": 2, "seed": 0},
    {"tcpa.num_cls_prompts": 6, "tcpa.num_image_prompts": 2, "tcpa.top_k_cls": 4,
     "tcpa.top_k_image": 2, "tcpa.prompt_length": 2, "optim.lr": 0.03, "seed": 1,
     "tcpa.lambda_image": 0.01, "optim.clip_norm": 0.5},
    {"tcpa.num_cls_prompts": 4, "tcpa.num_image_prompts": 9, "tcpa.top_k_cls": 2,
     "tcpa.top_k_image": 7, "tcpa.prompt_dropout": 0.0, "tcpa.random_epochs": 1, "seed": 2,
     "train.mixup_alpha": 0.8, "train.label_smoothing": 0.1, "optim.weight_decay": 0.5},
]  # fmt: skip
PROMPTER = [{**extra, "tcpa.image_prompter": True} for extra in TCPA[:2]]
VPT = [{"vpt.num_prompts": 2, "seed": 3}, {"vpt.num_prompts": 7, "optim.lr": 0.02, "seed": 4}]
POLY = [
    {"vpt.num_prompts": 2, "optim.schedule": "poly", "optim.min_lr": 1e-3, "optim.head_lr": 10.0},
    {"vpt.num_prompts": 7, "optim.head_lr": 0.5, "seed": 4},
]
CVPT = [{"cvpt.num_prompts": 1, "seed": 5}, {"cvpt.num_prompts": 6, "seed": 6}]
SHALLOW = [{"vpt.deep": False, **extra} for extra in VPT]
FOURIER = [
    {"vfpt.num_prompts": 3, "vfpt.fraction": 1.0, "seed": 9},
    {"vfpt.num_prompts": 8, "vfpt.prompt_dropout": 0.3, "seed": 10},
]
PAIR = [{**extra, "methods": ["vfpt", "tcpa"]} for extra in TCPA[:2]]
E2VPT = [
    {"e2vpt.prune_epoch": 1 + m, "e2vpt.token_prune": 50, "e2vpt.num_prompts": 2 + 3 * m,
     "e2vpt.num_kv_prompts": 3 - m, "train.mixup_alpha": 0.4 * m, "seed": 11 + m}
    for m in range(2)
]  # fmt: skip
GATED = [{"gated.num_prompts": 4 - m, "gated.gate_init": 1.0 + m, "seed": m} for m in range(2)]
SA2VP = [
    {"sa2vp.inner_dim": 4 + m, "sa2vp.inter_weight": 0.1 + 0.1 * m, "seed": m} for m in range(2)
]
LION = [{"lion.bottleneck": 8 - m, "lion.prune": 0.2 * m, "seed": m} for m in range(2)]
VP = [{"vp.prompt_size": 3, "seed": 17}, {"vp.prompt_size": 6, "vp.lr_scale": 5.0, "seed": 18}]
VP_PATCH = [{**extra, "vp.kind": "random_patch"} for extra in VP]
VP_TCPA = [{**a, **b, "methods": ["vp", "tcpa"]} for a, b in zip(VP, TCPA[:2], strict=True)]
DAMVP = [
    {"damvp.prompt_size": 3, "damvp.max_clusters": 4, "damvp.distance_threshold": 0.1, "seed": 19},
    {"damvp.prompt_size": 5, "damvp.max_clusters": 2, "seed": 20},
]
DAMVP_TCPA = [
    {**a, **b, "methods": ["damvp", "tcpa"]} for a, b in zip(DAMVP, TCPA[:2], strict=True)
]
DAMVP_FREE = [{**extra, "damvp.output": "head_free"} for extra in DAMVP]
AUTOVP = [{"autovp.img_scale": 0.5, "seed": 21}, {"autovp.img_scale": 1.25, "seed": 22}]
AUTOVP_ZOOM = [{**extra, "autovp.train_resize": True} for extra in AUTOVP]
AUTOVP_TCPA = [
    {**a, **b, "methods": ["autovp", "tcpa"]} for a, b in zip(AUTOVP, TCPA[:2], strict=True)
]
LINEAR = [{"optim.lr": 0.1, "seed": 7}, {"optim.lr": 0.02, "train.drop_path": 0.3, "seed": 8}]
MLP = [{"mlp.num_layers": 2, "seed": 9}, {"mlp.num_layers": 2, "mlp.dropout": 0.5, "seed": 10}]
LORA = [{"lora.rank": 2, "seed": 11}, {"lora.rank": 5, "train.drop_path": 0.3, "seed": 12}]
ADAPTFORMER = [
    {"adaptformer.bottleneck": 3, "adaptformer.head_norm": True, "seed": 13},
    {"adaptformer.bottleneck": 6, "adaptformer.head_norm": True, "seed": 14},
]
PACKS = {
    "mlp": MLP,
    "lora": LORA,
    "adaptformer": ADAPTFORMER,
    "tcpa": TCPA,
    "vpt": VPT,
    "vpt shallow": SHALLOW,
    "vpt whole batches": [{**extra, "train.drop_last": True} for extra in VPT],
    "vpt poly": POLY,
    "cvpt": CVPT,
    "vfpt": FOURIER,
    "vfpt tcpa": PAIR,
    "e2vpt": E2VPT,
    "gated": GATED,
    "sa2vp": SA2VP,
    "lion": LION,
    "linear": LINEAR,
    "vp": VP,
    "vp patch": VP_PATCH,
    "vp tcpa": VP_TCPA,
    "damvp": DAMVP,
    "damvp tcpa": DAMVP_TCPA,
    "damvp free": DAMVP_FREE,
    "autovp": AUTOVP,
    "autovp zoom": AUTOVP_ZOOM,
    "autovp tcpa": AUTOVP_TCPA,
}
ALONE = {"partial": [{"seed": 15}], "bias": [{"seed": 16}]}
"""Methods that train the backbone."""


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 small pictures in three classes that can be told apart by their colour."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        for label in range(3):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                pixels[..., label] |= 128
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(BackboneConfig(name="vit_nano", weights="random"))


def _config(images: Path, methods: str, settings: Mapping[str, Any]) -> TrialConfig:
    flat = {**BASE, "data.root": str(images), "methods": [methods.split()[0]], **settings}
    return TrialConfig.from_flat({**flat, "backbone.weights": "random"})


@pytest.fixture(scope="module")
def data(images: Path, cache: Path, backbone: Backbone) -> TrialData:
    return load_trial_data(_config(images, "linear", {}), backbone, cache_dir=cache)


def _same(solo: EpochReport, packed: EpochReport) -> None:
    for name in ("train_loss", "ce_loss", "match_loss", "val_loss"):
        assert getattr(packed, name) == pytest.approx(getattr(solo, name), rel=1e-5, abs=1e-6)
    assert packed.val_accuracy == solo.val_accuracy
    assert packed.epoch == solo.epoch


def _run(pack: Pack, members: list[Member], epochs: int) -> list[Member]:
    for _ in range(epochs):
        members = trained(pack.run_epoch(members))
    return members


def _scores(loss: float, accuracy: float) -> Scores:
    return Scores([loss], [accuracy], torch.zeros(1, 12, dtype=torch.int16))


def _save(pack: Pack, member: Member, folder: Path) -> None:
    save_member(member, folder, pack.backbone, pack.data)


@pytest.mark.parametrize("name", PACKS)
def test_members_equal_their_solo_runs(
    name: str, images: Path, backbone: Backbone, data: TrialData
) -> None:
    configs = [_config(images, name, settings) for settings in PACKS[name]]
    _check_members_equal_their_solo_runs(configs, backbone, data)


def test_members_with_image_prompters_equal_their_solo_runs(
    images: Path, data: TrialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64: through the pixels, one rounding in float32 may change which prompts match."""
    load = ImageSource.load

    def doubled(*args: Any) -> Callable[[], Tensor]:
        found = load(*args)
        return lambda: found().double()

    monkeypatch.setattr(ImageSource, "load", doubled)
    backbone = load_backbone(BackboneConfig(name="vit_nano", weights="random")).double()
    configs = [_config(images, "tcpa", settings) for settings in PROMPTER]
    _check_members_equal_their_solo_runs(configs, backbone, data)


def _check_members_equal_their_solo_runs(
    configs: list[TrialConfig], backbone: Backbone, data: TrialData
) -> None:
    pack = Pack(backbone, data)
    together = _run(pack, [pack.new_member(str(i), c) for i, c in enumerate(configs)], 3)
    for packed, config in zip(together, configs, strict=True):
        alone = Pack(backbone, data)
        (solo,) = _run(alone, [alone.new_member("x", config)], 3)
        assert len(packed.reports) == 3
        for one, other in zip(solo.reports, packed.reports, strict=True):
            _same(one, other)


def _partial(images: Path, **settings: Any) -> TrialConfig:
    return _config(images, "partial", {"partial.num_blocks": 2, "seed": 3, **settings})


def _runs_of_the_first_block(backbone: Backbone, pack: Pack, config: TrialConfig) -> list[int]:
    """Samples that the lowest block sees in each of three epochs, and in the test."""
    seen: list[int] = []
    hook = backbone.blocks[0].register_forward_hook(lambda _, x, y: seen.append(len(x[0])))
    counts = []
    members = [pack.new_member("x", config)]
    try:
        for _ in range(3):
            members = trained(pack.run_epoch(members))
            counts.append(sum(seen))
            seen.clear()
        pack.test(members)
        counts.append(sum(seen))
    finally:
        hook.remove()
    return counts


def test_frozen_blocks_see_every_image_once(
    images: Path, backbone: Backbone, data: TrialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the first trained block, where images and backbone do not change and memory is left."""
    train, val, test = 36, 12, 12
    pack = Pack(backbone, data)
    assert _runs_of_the_first_block(backbone, pack, _partial(images)) == [train + val, 0, 0, test]
    again = [train + val, 0, 0, test]  # tokens of another block take the place of the first
    assert (
        _runs_of_the_first_block(backbone, pack, _partial(images, **{"partial.num_blocks": 3}))
        == again
    )
    noisy = _partial(images, **{"train.drop_path": 0.2})
    assert _runs_of_the_first_block(backbone, Pack(backbone, data), noisy) == [
        train + val, train, train, test,
    ]  # fmt: skip
    monkeypatch.setattr("tcpa_core.training.kept_tokens.free_bytes", lambda device: 10_000)
    full = [train + val] * 3 + [test]
    assert _runs_of_the_first_block(backbone, Pack(backbone, data), _partial(images)) == full


@pytest.mark.parametrize("num_blocks", [1, 4])
def test_kept_tokens_change_nothing(
    num_blocks: int,
    images: Path,
    backbone: Backbone,
    data: TrialData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = _partial(images, **{"partial.num_blocks": num_blocks})
    reports, tested, costs = [], [], []
    for free in (10_000, 10**12):
        monkeypatch.setattr(
            "tcpa_core.training.kept_tokens.free_bytes", lambda device, free=free: free
        )
        pack = Pack(backbone, data)
        (member,) = _run(pack, [pack.new_member("x", config)], 3)
        assert len(member.reports) == 3
        reports.append(member.reports)
        tested.append(pack.test([member])[0][:2])
        costs.append(pack.result(member, "completed").train_flops_per_image)
    for without, kept in zip(*reports, strict=True):
        _same(without, kept)
    assert tested[0] == pytest.approx(tested[1], rel=1e-5)
    assert costs[0] == costs[1], "the table of a study does not depend on a worker's memory"


def test_members_join_and_leave(images: Path, backbone: Backbone, data: TrialData) -> None:
    configs = [_config(images, "tcpa", settings) for settings in TCPA]
    pack = Pack(backbone, data)
    members = {name: pack.new_member(name, c) for name, c in zip("abc", configs, strict=True)}
    for together in ("a", "ab", "bc", "cab", "c"):
        for member in trained(pack.run_epoch([members[name] for name in together])):
            members[member.trial] = member
    assert [member.epoch for member in members.values()] == [3, 3, 3]
    for member in members.values():
        alone = Pack(backbone, data)
        (solo,) = _run(alone, [alone.new_member("x", member.config)], member.epoch)
        for one, packed in zip(solo.reports, member.reports, strict=True):
            _same(one, packed)


@pytest.mark.parametrize(
    ("drop_last", "batch_size", "sizes"),
    [(False, 8, [8, 8, 8, 8, 4]), (True, 8, [8, 8, 8, 8]), (True, 12, [12] * 3), (True, 50, [36])],
)
def test_the_last_small_batch_is_left_out_where_asked(
    drop_last: bool,
    batch_size: int,
    sizes: list[int],
    images: Path,
    backbone: Backbone,
    data: TrialData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    load = ImageSource.load
    monkeypatch.setattr(
        ImageSource, "load", lambda s, i, d=None: seen.append(len(s.labels[i])) or load(s, i, d)
    )
    settings = {"train.drop_last": drop_last, "train.batch_size": batch_size, "data.flip": True}
    pack = Pack(backbone, data)
    (member,) = _run(pack, [pack.new_member("x", _config(images, "vpt", settings))], 1)
    (report,) = member.reports
    assert seen[: len(sizes)] == sizes and member.step == len(sizes)
    assert round(report.images_per_s * report.duration_s) == sum(sizes)


def test_float32_is_exact_in_convolutions_too(
    backbone: Backbone, data: TrialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    Pack(backbone, data)
    assert not torch.backends.cudnn.allow_tf32


def test_gradients_of_convolutions_are_the_same_each_time(
    backbone: Backbone, data: TrialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    Pack(backbone, data)
    assert torch.backends.cudnn.deterministic


def test_a_diverging_member_fails_alone(images: Path, backbone: Backbone, data: TrialData) -> None:
    good = _config(images, "vpt", VPT[0])
    bad = _config(images, "vpt", {**VPT[1], "optim.name": "adamw", "optim.lr": 1e30})
    pack = Pack(backbone, data)
    first, second = pack.new_member("good", good), pack.new_member("bad", bad)
    state = {name: tensor.clone() for name, tensor in second.state.items()}
    survivor, diverged = pack.run_epoch([first, second])
    assert isinstance(diverged, Diverged)
    assert "trial bad" in diverged.reason and "optim.lr=1e+30" in diverged.reason
    assert second.epoch == 0
    assert all(torch.equal(second.state[name], tensor) for name, tensor in state.items())
    (member,) = _run(pack, trained([survivor]), 2)
    alone = Pack(backbone, data)
    (solo,) = _run(alone, [alone.new_member("x", good)], 3)
    for one, packed in zip(solo.reports, member.reports, strict=True):
        _same(one, packed)


@pytest.mark.parametrize("name", ["tcpa", "adaptformer"])
def test_who_goes_on_beside_others_is_what_it_was(
    name: str, images: Path, backbone: Backbone, data: TrialData
) -> None:
    """A pack takes it from its own stacks; another one, from the tensors on the CPU."""
    configs = [_config(images, name, extra) for extra in PACKS[name]]
    pack, other = Pack(backbone, data), Pack(backbone, data)
    fresh = [pack.new_member(str(m), config) for m, config in enumerate(configs)]
    both = _run(pack, fresh[:2], 1)
    new = pack.new_member("new", configs[0])
    for members in ([both[1], new], [new, both[0]]):
        here, there = pack.run_epoch(members), other.run_epoch(members)
        for one, two in zip(trained(here), trained(there), strict=True):
            assert one.state.keys() == two.state.keys()
            for key in one.state:
                assert torch.equal(one.state[key], two.state[key]), key
            for key in one.moments:
                assert torch.equal(one.moments[key], two.moments[key]), key
        both, new = trained(here)[::-1], pack.new_member("newer", configs[1])


def test_a_state_that_is_kept_keeps_nothing_else(
    images: Path, backbone: Backbone, data: TrialData
) -> None:
    """A best epoch is held for as long as its trial trains."""
    pack = Pack(backbone, data)
    members = [pack.new_member(str(m), _config(images, "vpt", VPT[m])) for m in range(2)]
    members = _run(pack, members, 1)
    kinds = [tensors for member in members for tensors in (member.state, member.moments)]
    held = [{t.untyped_storage().data_ptr() for t in tensors.values()} for tensors in kinds]
    assert sum(map(len, held)) == len(set().union(*held)) == 4


def test_a_member_that_explodes_in_its_last_step_fails_alone(
    images: Path, backbone: Backbone, data: TrialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its losses are finite; what is left of it is not, and could not be recorded."""
    pack = Pack(backbone, data)
    members = [pack.new_member(f"{i}", _config(images, "vpt", VPT[i])) for i in range(2)]
    score = Evaluation.score

    def explode(self: Evaluation, model: Any, split: Any) -> Scores:
        found = score(self, model, split)
        return found._replace(loss=[found.loss[0], float("nan")])

    monkeypatch.setattr(Evaluation, "score", explode)
    good, bad = pack.run_epoch(members)
    assert isinstance(good, Member) and good.epoch == 1
    assert isinstance(bad, Diverged) and members[1].epoch == 0
    assert "val_loss is nan" in bad.reason and "after epoch 1 (trial 1" in bad.reason


@pytest.mark.parametrize("name", PACKS | ALONE)
def test_resume_is_bit_exact(
    name: str, images: Path, backbone: Backbone, data: TrialData, tmp_path: Path
) -> None:
    config = _config(images, name, (PACKS | ALONE)[name][-1])
    straight = Pack(backbone, data)
    (member,) = _run(straight, [straight.new_member("t", config)], 3)
    first = Pack(backbone, data)
    (halted,) = _run(first, [first.new_member("t", config)], 1)
    _save(first, halted, tmp_path)
    second = Pack(backbone, data)
    resumed = restore_member(tmp_path, "t", config)
    assert resumed.epoch == 1
    (resumed,) = _run(second, [resumed], 2)
    assert resumed.step == member.step
    for key, tensor in member.state.items():
        assert torch.equal(tensor, resumed.state[key]), key
    assert member.selected is not None and resumed.selected is not None
    assert member.selected.val_accuracy == resumed.selected.val_accuracy


VAL = [(0.9, 0.3), (0.5, 0.5), (0.7, 0.6), (0.8, 0.6)]
"""Loss and accuracy on val by epoch: the loss rises again while the accuracy still does, too."""
PICKS = {"best_val": 3, "best_val_loss": 2, "last_epoch": 4}


@pytest.mark.parametrize("rule", PICKS)
@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_result_is_of_the_epoch_that_the_rule_selects(
    rule: str, is_resumed: bool, images: Path, backbone: Backbone, data: TrialData,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = _config(images, "linear", {"train.epochs": 4, "train.selection": rule})
    pack = Pack(backbone, data)
    member = pack.new_member("t", config)
    for loss, accuracy in VAL:
        monkeypatch.setattr(Evaluation, "score", lambda *_, val=(loss, accuracy): _scores(*val))
        (member,) = _run(pack, [member], 1)
        _save(pack, member, tmp_path)
        if is_resumed:
            pack = Pack(backbone, data)
            member = restore_member(tmp_path, "t", config)
    found = pack.result(member, "completed")
    assert found.best_epoch == PICKS[rule]
    assert (found.val_loss, found.val_accuracy) == VAL[PICKS[rule] - 1]
    _, info = load_checkpoint(tmp_path / "best.safetensors")
    assert info["selected"]["epoch"] == PICKS[rule]
    assert info["selected"]["val_loss"] == found.val_loss


@pytest.mark.parametrize(("rule", "trained"), [("best_val", 4), ("best_val_loss", 3)])
def test_patience_watches_what_selects(
    rule: str, trained: int, images: Path, backbone: Backbone, data: TrialData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = {"train.epochs": 9, "train.patience": 1, "train.selection": rule}
    pack = Pack(backbone, data)
    member = pack.new_member("t", _config(images, "linear", settings))
    for loss, accuracy in VAL:
        if not member.is_done:
            monkeypatch.setattr(Evaluation, "score", lambda *_, val=(loss, accuracy): _scores(*val))
            (member,) = _run(pack, [member], 1)
    assert member.is_done and member.epoch == trained


def test_a_checkpoint_of_an_older_version_is_taken_up(
    images: Path, backbone: Backbone, data: TrialData, tmp_path: Path
) -> None:
    config = _config(images, "linear", {})
    pack = Pack(backbone, data)
    (member,) = _run(pack, [pack.new_member("t", config)], 1)
    _save(pack, member, tmp_path)
    tensors, info = load_checkpoint(tmp_path / "last.safetensors")
    info["peak_accuracy"] = info.pop("peak")
    for path in (*ADDED, "weights", "norm_stats"):  # what that version did not have
        (info if path in info else info["config"]).pop(path)
    save_checkpoint(tmp_path / "last.safetensors", tensors, info)
    assert restore_member(tmp_path, "t", config).peak == member.peak is not None
    info["config"]["optim.lr"] = 0.123
    save_checkpoint(tmp_path / "last.safetensors", tensors, info)
    with pytest.raises(CheckpointError, match="other settings than trial t"):
        restore_member(tmp_path, "t", config)


def test_frozen_weights_stay(images: Path, data: TrialData) -> None:
    backbone = load_backbone(BackboneConfig(name="vit_nano", weights="random"))
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    pack = Pack(backbone, data)
    _run(pack, [pack.new_member("a", _config(images, "tcpa", TCPA[0]))], 1)
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


def test_run_trial_learns_selects_and_leaves_a_model(
    images: Path, cache: Path, tmp_path: Path
) -> None:
    config = _config(images, "vpt", {"vpt.num_prompts": 4, "train.epochs": 6, "optim.lr": 0.02})
    seen: list[EpochReport] = []
    result = run_trial(config, on_epoch=seen.append, folder=tmp_path / "t", cache_dir=cache)
    assert result.status == "completed" and [r.epoch for r in seen] == [1, 2, 3, 4, 5, 6]
    best = max(seen, key=lambda r: (r.val_accuracy, -r.val_loss))
    assert (result.best_epoch, result.val_accuracy) == (best.epoch, best.val_accuracy)
    assert result.test_accuracy is not None and result.test_accuracy > 0.5
    assert result.warnings == ["Backbone vit_nano has random weights: accuracies mean nothing."]
    again = run_trial(config, folder=tmp_path / "t", cache_dir=cache)
    assert again.test_accuracy == result.test_accuracy, "a finished trial is not trained again"
    model = load_trained(tmp_path / "t" / "best.safetensors")
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


def _drain(worker: Worker) -> list[dict[str, Any]]:
    events = []
    while not worker.idle:
        events += [event.as_dict() for event in worker.work()]
    return events


def test_worker_tells_the_whole_story(images: Path, cache: Path, tmp_path: Path) -> None:
    worker = Worker(tmp_path, cache, "cpu")
    flats = [_config(images, "vpt", v).flat() for v in VPT]
    worker.take(Submit(trial="a", params=flats[0], until_epoch=3, test_at_end=True))
    worker.take(Submit(trial="b", params=flats[1], until_epoch=1))
    events = _drain(worker)
    kinds = [(e["trial"], e["kind"]) for e in events]
    assert kinds.count(("a", "epoch")) == 3 and kinds.count(("b", "epoch")) == 1
    assert kinds[-1] == ("a", "completed") and events[-1]["test_accuracy"] is not None
    held = [list(group.jobs) for group in worker._packs.groups]
    assert held == [["b"]], "b waits for more epochs"
    worker.take(Extend(trial="b", until_epoch=2))
    worker.take(Stop(trial="a"))  # already gone: nothing happens
    assert [e["kind"] for e in _drain(worker)] == ["epoch"]
    worker.take(Stop(trial="b"))
    (pruned,) = _drain(worker)
    assert pruned["kind"] == "pruned" and pruned["num_epochs"] == 2
    assert pruned["test_accuracy"] is None, "the test split is not read for a pruned trial"

    other = Worker(tmp_path, cache, "cpu")  # another process takes b up again
    other.take(Submit(trial="b", params=flats[1], until_epoch=3))
    started, *epochs, completed = _drain(other)
    assert (started["epoch"], completed["kind"]) == (2, "completed")
    assert [e["epoch"] for e in epochs] == [1, 2, 3], "those trained elsewhere are told again"
    seen = [e for e in events if (e["trial"], e["kind"]) == ("b", "epoch")]
    assert epochs[0] == seen[0], "with the numbers that were measured then"
    assert completed["test_accuracy"] is None
    other.take(commands.Test(trial="b", params=flats[1]))
    (tested,) = _drain(other)
    assert tested["kind"] == "tested" and 0 <= tested["test_accuracy"] <= 1


def test_worker_fails_only_the_trial_that_is_wrong(
    images: Path, cache: Path, tmp_path: Path
) -> None:
    worker = Worker(tmp_path, cache, "cpu")
    good = _config(images, "vpt", VPT[0]).flat()
    nowhere = {**good, "data.root": str(tmp_path / "nowhere")}
    worker.take(Submit(trial="gone", params=nowhere, until_epoch=3))
    worker.take(Submit(trial="good", params=good, until_epoch=1))
    events = _drain(worker)
    assert [(e["trial"], e["kind"]) for e in events] == [
        ("gone", "failed"), ("good", "started"), ("good", "epoch"),
    ]  # fmt: skip
    assert "nowhere" in events[0]["reason"]


def test_worker_shrinks_when_memory_is_short(
    images: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Pack.run_epoch
    sizes: list[int] = []

    def small_machine(self: Pack, members: list[Member]) -> list[Member | Diverged]:
        sizes.append(len(members))
        if len(members) > 1:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return whole(self, members)

    monkeypatch.setattr(Pack, "run_epoch", small_machine)
    worker = Worker(tmp_path, cache, "cpu")
    for i, settings in enumerate(VPT):
        flat = _config(images, "vpt", {**settings, "train.epochs": 2}).flat()
        worker.take(Submit(trial=str(i), params=flat, until_epoch=2))
    events = _drain(worker)
    assert sizes[0] == 2 and set(sizes[1:]) == {1}
    assert sum(e["kind"] == "epoch" for e in events) == 4, "nobody loses an epoch"
    assert sum(e["kind"] == "completed" for e in events) == 2


def test_a_fault_of_one_member_spares_the_others(
    images: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Pack.run_epoch

    def faulty(self: Pack, members: list[Member]) -> list[Member | Diverged]:
        if any(member.trial == "1" for member in members):
            raise ZeroDivisionError("of member 1")
        return whole(self, members)

    monkeypatch.setattr(Pack, "run_epoch", faulty)
    worker = Worker(tmp_path, cache, "cpu")
    for i, settings in enumerate(VPT):
        flat = _config(images, "vpt", {**settings, "train.epochs": 2}).flat()
        worker.take(Submit(trial=str(i), params=flat, until_epoch=2))
    events = {e["trial"]: e for e in _drain(worker)}
    assert events["0"]["kind"] == "completed"
    assert events["1"]["reason"] == "ZeroDivisionError: of member 1"
