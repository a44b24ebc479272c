"""E²VPT: key-value prompts, masks, and the second stage (methods.md, 8 and 16)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.data._cache import ImageStore
from tcpa_core.data.base import Split
from tcpa_core.errors import ConfigError
from tcpa_core.methods.base import MemberState, Step
from tcpa_core.model.attention import Backend
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.member_tensors import init_member_state
from tcpa_core.model.pack_model import PackModel
from tcpa_core.model.single_model import build_model
from tcpa_core.streams import Stream
from tcpa_core.training.image_source import ImageSource
from tcpa_core.training.member import Member
from tcpa_core.training.optim import lr_at
from tcpa_core.training.pack import Pack
from tcpa_core.training.saved_member import restore_member, save_member
from tcpa_core.training.trial_data import TrialData
from tests.tcpa_core import checks, oracle
from tests.tcpa_core.checks import close
from tests.tcpa_core.tiny import KINDS, NUM_CLASSES, images, tiny_backbone, trained, trial

EVAL = Step.evaluation(1)
PRUNING = {"prune_epoch": 2, "token_prune": 50, "segment_prune": 50}


def e2vpt(seed: int = 0, **settings: Any) -> TrialConfig:
    core = {key: settings.pop(key) for key in list(settings) if "__" in key}
    return trial(["e2vpt"], seed=seed, **core, **{f"e2vpt__{k}": v for k, v in settings.items()})


def literal(
    backbone: Backbone, config: TrialConfig, state: MemberState, x: Tensor, step: Step
) -> Tensor:
    """Prompts are tokens of the sequence; heads are looped over; nothing is skipped."""
    settings, vit = config.method_settings["e2vpt"], backbone.vit
    x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(x))))
    prefix = backbone.layout.num_prefix
    for layer, block in enumerate(vit.blocks):
        size = settings.num_prompts
        prompts = x.new_zeros(len(x), 0, x.shape[-1])
        if size:
            raw, rate = state["e2vpt.prompts"][layer], settings.prompt_dropout
            dropped = oracle._drop(raw, rate, len(x), step, "e2vpt.prompt_dropout", layer)
            prompts = _masked(settings, state, dropped)
        z = torch.cat([x[:, :prefix], prompts, x[:, prefix:]], dim=1)
        z = z + block.ls1(_attention(settings, state, layer, block.attn, block.norm1(z)))
        z = z + block.ls2(block.mlp(block.norm2(z)))
        is_pooled = settings.pool_prompts and layer == len(vit.blocks) - 1
        x = z if is_pooled else torch.cat([z[:, :prefix], z[:, prefix + size :]], dim=1)
    x = vit.norm(x)
    names = ("head", "head_dist")
    features = [x[:, 0], x[:, 1]] if backbone.layout.has_dist else [vit.forward_head(x, True)]
    logits = [f @ state[f"{n}.weight"].T + state[f"{n}.bias"] for n, f in zip(names, features)]  # noqa: B905
    return checks.loss_of(torch.stack(logits).mean(0))


def _masked(settings: Any, state: MemberState, prompts: Tensor) -> Tensor:
    if "e2vpt.token_mask" not in state:
        return prompts
    width, count = prompts.shape[-1], settings.num_segments
    out = prompts.clone()
    for p in range(prompts.shape[1]):
        for channel in range(width):
            contiguous = settings.segments == "contiguous"
            segment = channel * count // width if contiguous else channel % count
            kept = state["e2vpt.token_mask"][p] * state["e2vpt.segment_mask"][p, segment]
            out[:, p, channel] = prompts[:, p, channel] * kept
    return out


def _attention(settings: Any, state: MemberState, layer: int, attn: Any, z: Tensor) -> Tensor:
    q, k, v = (t.unflatten(-1, (attn.num_heads, -1)) for t in attn.qkv(z).chunk(3, dim=-1))
    q, k = attn.q_norm(q), attn.k_norm(k)
    mixed = []
    for h in range(attn.num_heads):
        keys, values = k[:, :, h], v[:, :, h]
        if settings.num_kv_prompts:
            names = ("kv_prompts",) * 2 if settings.share_kv else ("key_prompts", "value_prompts")
            more = [state[f"e2vpt.{n}"][layer, h].expand(len(z), -1, -1) for n in names]
            keys, values = torch.cat([more[0], keys], 1), torch.cat([more[1], values], 1)
        scores = q[:, :, h] @ keys.transpose(1, 2) / q.shape[-1] ** 0.5
        mixed.append(scores.softmax(-1) @ values)
    return attn.proj(attn.norm(torch.cat(mixed, dim=-1)))


TRIALS = {
    "defaults": e2vpt(num_prompts=3, num_kv_prompts=2),
    "own values": e2vpt(num_prompts=2, num_kv_prompts=3, share_kv=False, prompt_dropout=0.3),
    "key-value only": e2vpt(num_prompts=0, num_kv_prompts=4),
    "prompts only": e2vpt(num_prompts=3, num_kv_prompts=0),
    "contiguous": e2vpt(num_prompts=3, **PRUNING),
    "interleaved": e2vpt(num_prompts=3, segments="interleaved", num_segments=8, **PRUNING),
    "trained masks": e2vpt(num_prompts=2, segments="interleaved", train_masks=True, **PRUNING),
}


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TRIALS)
def test_forward_and_gradients_equal_the_literal_reference(name: str, kind: str, mode: str) -> None:
    checks.equals_literal(kind, TRIALS[name], mode, literal)


@pytest.mark.parametrize("segments", ["contiguous", "interleaved"])
def test_masked_prompts_equal_the_literal_reference(segments: str) -> None:
    backbone = tiny_backbone()
    config = e2vpt(num_prompts=4, segments=segments, num_segments=8, **PRUNING)
    state = init_member_state(backbone, config, NUM_CLASSES)
    state["e2vpt.token_mask"] = torch.tensor([1.0, 0.0, 1.0, 1.0]).double()
    random = torch.rand(4, 8, generator=torch.Generator().manual_seed(0))
    state["e2vpt.segment_mask"] = (random > 0.5).double()
    x = images(backbone, samples=2)
    logits = PackModel(backbone, [config], NUM_CLASSES, [state])(x, EVAL).logits[0]
    close(checks.loss_of(logits), literal(backbone, config, state, x[0], EVAL))
    whole = {**state, "e2vpt.segment_mask": torch.ones(4, 8).double()}
    other = PackModel(backbone, [config], NUM_CLASSES, [whole])(x, EVAL).logits[0]
    assert (other - logits).abs().max() > 1e-4


@pytest.mark.parametrize("backend", ["dense", "twin", "lse"])
def test_every_backend_gives_the_same(backend: Backend) -> None:
    backbone, configs = tiny_backbone(), PACKS["shared"][:2]
    x, step = images(backbone, members=2, samples=2), checks.step_of(configs, "train")
    first, second = (
        PackModel(backbone, configs, NUM_CLASSES, backend=b)(x, step).logits
        for b in (None, backend)
    )
    close(first, second)


@pytest.mark.parametrize("kind", ["no_cls", "cls_avg"])
def test_pooled_prompts(kind: str) -> None:
    config = e2vpt(num_prompts=3, pool_prompts=True)
    checks.equals_literal(kind, config, "train", literal)


PACKS = {
    "shared": [e2vpt(m, num_prompts=3 - m, num_kv_prompts=1 + 2 * m) for m in range(3)],
    "own values": [e2vpt(m, num_kv_prompts=3 - m, share_kv=False) for m in range(3)],
    "key-value only": [e2vpt(m, num_prompts=0, num_kv_prompts=4 - m) for m in range(3)],
    "pruning": [
        e2vpt(m, num_prompts=2 + m, **{**PRUNING, "token_prune": 30 * (1 + m)}) for m in range(3)
    ],
    "trained masks": [e2vpt(m, num_prompts=3 - m, train_masks=True, **PRUNING) for m in range(3)],
}


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", PACKS)
def test_members_equal_their_solo_runs(name: str, mode: str) -> None:
    checks.members_equal_solo(PACKS[name], "layer_scale", mode)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_added_is_the_backbone_and_head_to_the_bit(kind: str) -> None:
    checks.is_backbone_and_head(e2vpt(num_prompts=0, num_kv_prompts=0), kind)


def test_without_key_value_prompts_it_is_deep_vpt() -> None:
    backbone = tiny_backbone()
    ours = build_model(TRIALS["prompts only"], num_classes=NUM_CLASSES, backbone=backbone)
    state = {k.replace("e2vpt.", "vpt."): v for k, v in ours.pack.tensors.state(0).items()}
    plain = trial(["vpt"], vpt__num_prompts=3)
    vpt = build_model(plain, num_classes=NUM_CLASSES, backbone=backbone, state=state)
    x = images(backbone)[0]
    assert torch.equal(ours.eval()(x), vpt.eval()(x))


def test_count_is_the_published() -> None:
    assert checks.count_without_head(e2vpt()) == 138_240
    assert checks.count_without_head(e2vpt(share_kv=False)) == 138_240 + 46_080
    assert checks.count_without_head(e2vpt(**PRUNING)) == 138_240
    assert checks.count_without_head(e2vpt(train_masks=True, **PRUNING)) == 138_240 + 10 + 160


@pytest.mark.parametrize(
    ("init", "bound"),
    [("kaiming", (6 / (5 * 8)) ** 0.5), ("uniform", (6 / (3 * 64 + 16)) ** 0.5)],
)
def test_initial_bounds(init: str, bound: float) -> None:
    state = init_member_state(tiny_backbone(), e2vpt(kv_init=init), NUM_CLASSES)
    assert 0.95 < float(state["e2vpt.kv_prompts"].abs().max()) / bound <= 1


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"prune_epoch must be < train.epochs, got 20 >= 20"):
        PackModel(tiny_backbone(), [e2vpt(**{**PRUNING, "prune_epoch": 20})], NUM_CLASSES)
    with pytest.raises(ConfigError, match=r"train.patience must be null where .* got 3"):
        PackModel(tiny_backbone(), [e2vpt(train__patience=3, **PRUNING)], NUM_CLASSES)
    with pytest.raises(ConfigError, match=r"num_segments must divide .* got 5 .* width 32"):
        PackModel(tiny_backbone(), [e2vpt(num_segments=5, **PRUNING)], NUM_CLASSES)
    with pytest.raises(ConfigError, match="'e2vpt' and 'tcpa' cannot be chained"):
        PackModel(tiny_backbone(), [trial(["e2vpt", "tcpa"])], NUM_CLASSES)
    with pytest.raises(ConfigError, match=r"e2vpt.pool_prompts needs a backbone that averages"):
        PackModel(tiny_backbone(), [e2vpt(pool_prompts=True)], NUM_CLASSES)


@pytest.fixture(scope="module")
def data() -> TrialData:
    """Twenty random pictures in three classes."""
    generator = torch.Generator().manual_seed(0)
    half = (0.5, 0.5, 0.5)
    config, sources = trial(["linear"]).data, {}
    for name, count in (("train", 20), ("val", 6), ("test", 6)):
        pixels = torch.randint(0, 256, (count, 32 * 32 * 3), generator=generator).byte().numpy()
        side, numbers = np.full(count, 32), np.arange(count)
        values = pixels.reshape(len(numbers), -1)
        store = ImageStore(
            pixels.ravel(), numbers * 32 * 32 * 3, side, side,
            lows=values.min(1), highs=values.max(1), flat=np.zeros(len(numbers), dtype=bool),
        )  # fmt: skip
        split = Split(images=store, labels=numbers % 3, paths=tuple(map(str, numbers)))
        sources[name] = ImageSource(split, config, 32, half, half, "cpu")
    return TrialData(**sources, class_names=("a", "b", "c"), fingerprint="random")


def small_pack(data: TrialData) -> Pack:
    return Pack(tiny_backbone(dtype=torch.float32), data)


def two_stage(**settings: Any) -> TrialConfig:
    core = {"train__epochs": 5, "train__batch_size": 8, "optim__lr": 0.01}
    return e2vpt(3, **{**core, "num_prompts": 4, **PRUNING, **settings})


def run(pack: Pack, member: Member, epochs: int) -> Member:
    for _ in range(epochs):
        (member,) = trained(pack.run_epoch([member]))
    return member


@pytest.mark.parametrize("importance", ["abs", "signed"])
def test_the_least_important_are_cut(importance: str, data: TrialData) -> None:
    """Scores from differences of the loss, batch by batch, with respect to each mask entry."""
    config = two_stage(importance=importance, num_kv_prompts=1, num_segments=4)
    pack = small_pack(data)
    member, twin = (
        pack.new_member("t", c) for c in (config, config.replace_paths({"e2vpt.prune_epoch": 4}))
    )
    member = run(pack, member, 2)
    before = run(pack, twin, 2).state
    order = torch.randperm(20, generator=Stream(config.seed).generator("order", 1))
    model = PackModel(tiny_backbone(), [config], 3, [before])
    for name in ("token_mask", "segment_mask"):
        scores = torch.zeros_like(before[f"e2vpt.{name}"]).double()
        for batch in order.split(8):
            x, y = data.train.batch(batch, None)[None].double(), data.train.labels[batch]
            grad = torch.zeros_like(scores)
            for entry in range(scores.numel()):
                losses = []
                for move in (1e-4, -1e-4):
                    getattr(model.methods["e2vpt"], name).view(-1)[entry] += move
                    logits = model(x, EVAL).logits[0]
                    losses.append(float(torch.nn.functional.cross_entropy(logits.detach(), y)))
                    getattr(model.methods["e2vpt"], name).view(-1)[entry] -= move
                grad.view(-1)[entry] = (losses[0] - losses[1]) / 2e-4
            scores += (grad.abs() if importance == "abs" else grad) / 3
        cut = member.state[f"e2vpt.{name}"] == 0
        assert (cut.sum(-1) == 2).all()
        for row, gone in zip(scores.view(-1, 4), cut.view(-1, 4), strict=True):
            assert row[gone].max() < row[~gone].min()


@pytest.mark.parametrize(
    ("tokens", "segments", "kept"), [(50, 0, (2, 16)), (99, 99, (1, 4)), (10, 30, (4, 12))]
)
def test_at_least_one_prompt_and_a_quarter_of_its_segments_stay(
    tokens: int, segments: int, kept: tuple[int, int], data: TrialData
) -> None:
    pack = small_pack(data)
    member = pack.new_member(
        "t", two_stage(prune_epoch=1, token_prune=tokens, segment_prune=segments)
    )
    member = run(pack, member, 1)
    assert int(member.state["e2vpt.token_mask"].sum()) == kept[0]
    assert (member.state["e2vpt.segment_mask"].sum(-1) == kept[1]).all()


@pytest.mark.parametrize("rewind", ["stored", "reinit"])
def test_the_second_stage_starts_afresh(rewind: str, data: TrialData) -> None:
    config = two_stage(rewind=rewind)
    pack = small_pack(data)
    member = pack.new_member("t", config)
    start = dict(member.state)
    member = run(pack, member, 2)
    assert member.moments == {} and (member.stage_epoch, member.stage_step) == (2, 6)
    for key in ("e2vpt.prompts", "e2vpt.kv_prompts", "head.weight"):
        assert torch.equal(member.state[key], start[key]) is (rewind == "stored")
    assert member.selected is not None and member.selected.epoch <= 2
    masks = {k: v for k, v in member.state.items() if k.endswith("mask")}
    member = run(pack, member, 1)
    assert member.selected is not None
    assert member.selected.epoch == 3, "epochs before the pruning are not selected any more"
    member = run(pack, member, 2)
    assert all(torch.equal(member.state[k], v) for k, v in masks.items())
    rates = [lr_at(config.optim, i, n) for n, i in ((15, 2), (15, 5), (9, 2), (9, 5), (9, 8))]
    assert [r.lr for r in member.reports] == pytest.approx(rates)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_trained_masks_are_fixed_once_they_are_cut(optimizer: str, data: TrialData) -> None:
    config = two_stage(train_masks=True, optim__weight_decay=0.1, optim__name=optimizer)
    pack = small_pack(data)
    member = pack.new_member("t", config)
    names = ("e2vpt.token_mask", "e2vpt.segment_mask")
    member = run(pack, member, 1)
    assert all((member.state[n] != 1).any() for n in names), "they are trained at first"
    member = run(pack, member, 1)
    cut = {n: member.state[n] for n in names}
    assert all(set(mask.unique().tolist()) == {0.0, 1.0} for mask in cut.values())
    before = member.state["e2vpt.prompts"]
    member = run(pack, member, 2)
    assert all(torch.equal(member.state[n], mask) for n, mask in cut.items())
    assert not torch.equal(member.state["e2vpt.prompts"], before)


def test_scoring_may_go_on_training(data: TrialData) -> None:
    pack = small_pack(data)
    member = run(pack, pack.new_member("t", two_stage(prune_epoch=3)), 1)
    before = dict(member.state)
    names = ["e2vpt.token_mask"]
    still, moving = (
        [g["e2vpt.token_mask"] for g in pack._between_epochs.gradients(member, names, update)]
        for update in (False, True)
    )
    assert torch.equal(still[0], moving[0])
    assert not torch.equal(still[1], moving[1])
    assert all(torch.equal(member.state[name], value) for name, value in before.items())
    twin = pack.new_member("t", two_stage(prune_epoch=1, update_while_scoring=True))
    twin = run(pack, twin, 1)
    assert twin.stage_epoch == 1


def test_an_optimiser_that_starts_afresh_counts_its_steps_anew(data: TrialData) -> None:
    """AdamW's first step after the restart has the length of a first step."""
    config = two_stage(optim__weight_decay=0.0, optim__warmup_fraction=0.0, train__batch_size=32)
    pack = small_pack(data)
    member = pack.new_member("t", config)
    member = run(pack, member, 2)
    before = member.state["head.bias"]
    member = run(pack, member, 1)
    moved = (member.state["head.bias"] - before).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, config.optim.lr), rtol=1e-4, atol=0)


@pytest.mark.parametrize("halt", [1, 2, 3])
def test_resume_goes_on_bit_by_bit(halt: int, data: TrialData, tmp_path: Path) -> None:
    config = two_stage(train__mixup_alpha=0.5)
    straight = small_pack(data)
    member = straight.new_member("t", config)
    member = run(straight, member, 5)
    first = small_pack(data)
    halted = run(first, first.new_member("t", config), halt)
    save_member(halted, tmp_path, first.backbone, data)
    second = small_pack(data)
    resumed = restore_member(tmp_path, "t", config)
    assert resumed.selected is not None and halted.selected is not None
    for key, tensor in halted.selected.state.items():
        assert torch.equal(tensor, resumed.selected.state[key]), key
    resumed = run(second, resumed, 5 - halt)
    assert resumed.selected is not None
    for key, tensor in member.state.items():
        assert torch.equal(tensor, resumed.state[key]), key
    assert member.selected is not None and member.selected.epoch == resumed.selected.epoch


def test_members_of_both_stages_share_a_pack(data: TrialData) -> None:
    configs = [two_stage(prune_epoch=1), two_stage(prune_epoch=3, num_prompts=2, num_kv_prompts=1)]
    pack = small_pack(data)
    members = [pack.new_member(str(m), c) for m, c in enumerate(configs)]
    for _ in range(5):
        members = trained(pack.run_epoch(members))
    for packed, config in zip(members, configs, strict=True):
        alone = small_pack(data)
        other = run(alone, alone.new_member("x", config), 5)
        assert len(packed.reports) == 5
        for report, solo in zip(packed.reports, other.reports, strict=True):
            assert report.train_loss == pytest.approx(solo.train_loss, rel=1e-5)
            assert report.val_loss == pytest.approx(solo.val_loss, rel=1e-5)


def test_nothing_to_cut_is_no_second_stage(data: TrialData) -> None:
    pack = small_pack(data)
    member = pack.new_member("t", two_stage(token_prune=0, segment_prune=0))
    member = run(pack, member, 3)
    assert member.stage_epoch == 0 and "e2vpt.token_mask" not in member.state


def test_flops_are_those_that_torch_counts() -> None:
    assert checks.uncounted_flops(e2vpt(num_prompts=3, num_kv_prompts=4)) == 0
