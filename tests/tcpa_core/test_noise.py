"""Dropout and drop path inside the frozen network (methods.md, 0.2)."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tcpa_core.chain import pack_key
from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import MemberState, Pass, Step
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.noise import Noise, has_noise
from tcpa_core.model.pack_model import PackModel
from tests.tcpa_core import chance, checks
from tests.tcpa_core.tiny import NUM_CLASSES, images, tiny_backbone, trial


def literal(
    backbone: Backbone, config: TrialConfig, state: MemberState, x: Tensor, step: Step
) -> Tensor:
    """A plain ViT, formula by formula; with CVPT at position 2 (one prompt) if it is there."""
    vit, train, place = backbone.vit, config.train, iter(range(100))

    def dropped(z: Tensor) -> Tensor:
        if train.dropout == 0:
            return z
        name = f"backbone.dropout.{next(place)}"
        return z * chance.dropout(tuple(z.shape), train.dropout, step, name, 0)

    def skipped(branch: Tensor, layer: int) -> Tensor:
        rate = train.drop_path * (layer // 2) / (len(vit.blocks) - 1)
        if rate == 0:
            return branch
        name = "backbone.drop_path"
        return branch * chance.dropout((len(branch), 1, 1), rate, step, name, layer)

    patches = vit.patch_embed(x)
    prefix = vit.cls_token.expand(len(x), -1, -1)
    z = dropped(torch.cat([prefix, patches], 1) + vit.pos_embed)
    for index, block in enumerate(vit.blocks):
        branch = block.ls1(block.attn(block.norm1(z)))
        if "cvpt" in config.methods:  # one prompt has all the attention
            width = z.shape[-1]
            prompt = state["cvpt.prompts"][index]
            value = prompt @ block.attn.qkv.weight[2 * width :].T + block.attn.qkv.bias[2 * width :]
            branch = branch + block.attn.proj(value)
        z = z + skipped(branch, 2 * index)
        last = index == len(vit.blocks) - 1
        z = z[:, :1] if last and train.dropout else z  # draws cover the rows that are read
        hidden = dropped(block.mlp.act(block.mlp.fc1(block.norm2(z))))
        z = z + skipped(block.ls2(dropped(block.mlp.fc2(hidden))), 2 * index + 1)
    feature = vit.norm(z)[:, 0]
    return checks.loss_of(feature @ state["head.weight"].T + state["head.bias"])


@pytest.mark.parametrize(
    ("methods", "settings"),
    [
        (["linear"], {"train__drop_path": 0.5}),
        (["cvpt"], {"train__drop_path": 0.5, "cvpt__position": 2, "cvpt__num_prompts": 1,
                    "cvpt__prompt_dropout": 0.0}),
    ],
)  # fmt: skip
def test_samples_skip_branches(methods: list[str], settings: dict[str, Any]) -> None:
    checks.equals_literal("cls", trial(methods, seed=3, **settings), "train", literal)


def test_activations_are_dropped() -> None:
    """A method that runs blocks row by row, so that the last one covers the rows that are read."""
    config = trial(["lora"], seed=3, lora__rank=1, train__dropout=0.3, train__drop_path=0.3)
    backbone, step = tiny_backbone(), checks.step_of([config], "train")
    pack, x = PackModel(backbone, [config], NUM_CLASSES), images(backbone, samples=2)
    expected = literal(backbone, config, pack.tensors.state(0), x[0], step)  # B = 0 at the start
    checks.close(checks.loss_of(pack(x, step).logits[0]), expected)


NOISE = [{"train__drop_path": 0.4 * (m % 2), "optim__lr": 0.1 + m} for m in range(3)]
CHAINS: dict[str, dict[str, Any]] = {
    "linear": {},
    "vpt": {"vpt__num_prompts": 3},
    "vpt shallow": {"vpt__deep": False, "vpt__num_prompts": 3},
    "tcpa": {"tcpa__num_cls_prompts": 3, "tcpa__num_image_prompts": 4},
    "cvpt": {"cvpt__num_prompts": 2},
    "gated": {"gated__num_prompts": 2},
    "sa2vp": {"sa2vp__inner_dim": 3},
    "lora": {"lora__rank": 2},
    "damvp": {"damvp__prompt_size": 2, "damvp__distance_threshold": 1e-3},
}


@pytest.mark.parametrize("name", CHAINS)
def test_members_draw_for_themselves(name: str) -> None:
    method = name.split()[0]
    configs = [trial([method], seed=m, **CHAINS[name], **NOISE[m]) for m in range(3)]
    checks.members_equal_solo(configs, "cls", "train")
    both = [trial([method], seed=m, **CHAINS[name], train__dropout=0.1 + 0.2 * m) for m in range(2)]
    checks.members_equal_solo(both, "cls", "train")


@pytest.mark.parametrize("name", CHAINS)
def test_noise_changes_training_and_only_training(name: str) -> None:
    backbone, method = tiny_backbone(), name.split()[0]
    x = images(backbone)
    settings = CHAINS[name]
    plain = trial([method], **settings)
    state = checks.fitted(backbone, plain)
    for noise in ({"train.drop_path": 0.5}, {"train.dropout": 0.5}):
        config = plain.replace_paths(noise)
        assert has_noise(config) and not has_noise(plain)
        packs = [PackModel(backbone, [c], NUM_CLASSES, [state]) for c in (plain, config)]
        first, second = (p(x, Step.evaluation(1)).logits for p in packs)
        assert torch.equal(first, second)
        first, second = (p(x, checks.step_of([plain], "train")).logits for p in packs)
        assert (first - second).abs().max() > 1e-6
    assert all(getattr(m, "change", None) is None for m in backbone.modules()), "all sites closed"


def test_both_branches_of_sa2vp_draw_for_every_sample() -> None:
    """Equal images read differently only through what is drawn."""
    backbone = tiny_backbone()
    config = trial(["sa2vp"], sa2vp__inner_dim=3, sa2vp__dropout=0.0, train__dropout=0.5)
    pack = PackModel(backbone, [config], NUM_CLASSES)
    x = images(backbone, samples=1).expand(-1, 2, -1, -1, -1)
    output = pack(x, checks.step_of([config], "train"))
    for logits in (output.logits, output.side_logits[0][1]):
        assert (logits[0, 0] - logits[0, 1]).abs().max() > 1e-6
    method: Any = pack.methods["sa2vp"]
    step = checks.step_of([config], "train")
    state = method.begin(Pass(step=step, rows=pack.backbone.rows_read, backend=None))
    with Noise(backbone, [config]).during(step):
        method.on_tokens(backbone.embed(x[0])[None], state)
    assert state.prompts.shape[1] == 2
    dropped = (state.prompts == 0).double().mean()
    assert 0.4 < dropped < 0.6, "behind the position embeddings, as in the base branch"


def test_clusters_are_found_without_noise() -> None:
    backbone = tiny_backbone()
    config = trial(["damvp"], train__dropout=0.5, **CHAINS["damvp"])
    pack = PackModel(backbone, [config], NUM_CLASSES, [checks.fitted(backbone, config)])
    x = images(backbone, samples=8)
    seen: list[Tensor] = []
    method: Any = pack.methods["damvp"]
    original = method._features
    method._features = lambda batch: seen.append(original(batch)) or seen[-1]
    pack(x, checks.step_of([config], "train"))
    pack(x, Step.evaluation(1))
    assert torch.equal(seen[0], seen[1])


def test_dropout_shares_a_pack_with_equal_sizes_only() -> None:
    """Its draws cover padding, too, so there must be none."""
    few, many = (trial(["vpt"], vpt__num_prompts=n, train__dropout=0.1) for n in (2, 3))
    assert pack_key(few) != pack_key(many)
    assert pack_key(few) == pack_key(few.replace_paths({"optim.lr": 0.3, "train.dropout": 0.2}))
    few, many = (trial(["vpt"], vpt__num_prompts=n, train__drop_path=0.1) for n in (2, 3))
    assert pack_key(few) == pack_key(many)
