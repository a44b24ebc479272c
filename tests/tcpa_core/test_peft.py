"""Baselines: adapters, LoRA, SSF, heads, side network, weights of the backbone (methods.md, 12)."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.methods import ssf
from tcpa_core.methods.base import MemberState, Step
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.member_tensors import init_member_state
from tcpa_core.model.pack_model import PackModel
from tcpa_core.model.single_model import build_model
from tests.tcpa_core import chance, checks
from tests.tcpa_core.tiny import KINDS, NUM_CLASSES, images, tiny_backbone, training_step, trial

EVAL = Step.evaluation(1)


def of(method: str, seed: int = 0, **settings: Any) -> TrialConfig:
    core = {key: settings.pop(key) for key in list(settings) if "__" in key}
    return trial([method], seed=seed, **core, **{f"{method}__{k}": v for k, v in settings.items()})


def keep(shape: tuple[int, ...], rate: float, step: Step, name: str, layer: int) -> Tensor | float:
    """What dropout multiplies with, from the trial's stream."""
    if not step.training or rate == 0:
        return 1.0
    return chance.dropout(shape, rate, step, name, layer)


def attention(attn: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Head by head; q, k and v (B, S, A) before their norms."""
    q, k, v = (t.unflatten(-1, (attn.num_heads, -1)) for t in (q, k, v))
    q, k, mixed = attn.q_norm(q), attn.k_norm(k), []
    for h in range(attn.num_heads):
        scores = q[:, :, h] @ k[:, :, h].transpose(1, 2) / q.shape[-1] ** 0.5
        mixed.append(scores.softmax(-1) @ v[:, :, h])
    return attn.norm(torch.cat(mixed, dim=-1))


class Literal:
    """A plain ViT, one formula after the other; subclasses add their method's."""

    def __init__(self, state: MemberState, config: TrialConfig, step: Step) -> None:
        (name,) = config.methods
        self.own = {k.split(".")[1]: v for k, v in state.items() if k.startswith(f"{name}.")}
        self.settings, self.name, self.step = config.method_settings[name], name, step
        self.drop_path = config.train.drop_path

    def __call__(self, backbone: Backbone, x: Tensor, state: MemberState) -> Tensor:
        vit = backbone.vit
        x = vit.norm_pre(vit.patch_drop(vit._pos_embed(self.patches(vit.patch_embed(x)))))
        for index, block in enumerate(vit.blocks):
            x = self.block(index, block, x, len(vit.blocks))
        x = vit.norm(x)
        if not backbone.layout.pool.startswith("avg"):
            x = self.final(x)
        is_distilled = backbone.layout.has_dist
        features = [x[:, 0], x[:, 1]] if is_distilled else [vit.forward_head(x, True)]
        if backbone.layout.pool.startswith("avg"):
            features = [self.final(features[0])]
        features = self.features(features)
        logits = [
            f @ state[f"{name}.weight"].T + state[f"{name}.bias"]
            for f, name in zip(features, ("head", "head_dist"), strict=False)
        ]
        return checks.loss_of(torch.stack(logits).mean(0))

    def skipped(self, branch: Tensor, layer: int, depth: int) -> Tensor:
        rate = self.drop_path * (layer // 2) / max(depth - 1, 1)
        factor = keep((len(branch), 1, 1), rate, self.step, "backbone.drop_path", layer)
        return branch if isinstance(factor, float) else branch * factor

    def block(self, index: int, block: Any, x: Tensor, depth: int) -> Tensor:
        h = self.behind("norm1", index, x, block.norm1(x))
        qkv = block.attn.qkv(h).chunk(3, dim=-1)
        q, k, v = (self.behind(n, index, h, t) for n, t in zip("qkv", qkv, strict=True))
        mixed = attention(block.attn, q, k, v)
        o = self.behind("o", index, mixed, block.attn.proj(mixed))
        u = x + self.skipped(block.ls1(o), 2 * index, depth)
        h = self.behind("norm2", index, u, block.norm2(u))
        hidden = F.gelu(self.behind("fc1", index, h, block.mlp.fc1(h)))
        m = self.behind("fc2", index, hidden, block.mlp.fc2(hidden))
        m = self.behind("mlp", index, h, m)
        return u + self.skipped(block.ls2(m), 2 * index + 1, depth) + self.beside(index, u)

    def patches(self, x: Tensor) -> Tensor:
        return x

    def behind(self, layer: str, index: int, x: Tensor, y: Tensor) -> Tensor:
        return y

    def beside(self, index: int, u: Tensor) -> Tensor | float:
        return 0.0

    def final(self, x: Tensor) -> Tensor:
        return x

    def features(self, features: list[Tensor]) -> list[Tensor]:
        return features


class Adapter(Literal):
    def behind(self, layer: str, index: int, x: Tensor, y: Tensor) -> Tensor:
        if layer != "mlp":
            return y
        down = y @ self.own["down_weight"][index].T + self.own["down_bias"][index]
        return y + F.gelu(down) @ self.own["up_weight"][index].T + self.own["up_bias"][index]


class AdaptFormer(Literal):
    def beside(self, index: int, u: Tensor) -> Tensor:
        hidden = F.relu(u @ self.own["down_weight"][index].T + self.own["down_bias"][index])
        name, rate = "adaptformer.dropout", self.settings.dropout
        hidden = hidden * keep(tuple(hidden.shape), rate, self.step, name, index)
        up = hidden @ self.own["up_weight"][index].T + self.own["up_bias"][index]
        return up * (self.own["scale"][index] if "scale" in self.own else self.settings.scale)

    def features(self, features: list[Tensor]) -> list[Tensor]:
        if not self.settings.head_norm:
            return features
        joint, width = torch.cat(features, -1), features[0].shape[-1]
        mean, var = self.own["running_mean"].detach(), self.own["running_var"].detach()
        normed = F.batch_norm(
            joint, mean.clone(), var.clone(), training=self.step.training, eps=1e-6
        )
        return list(normed.split(width, -1))


class Lora(Literal):
    def behind(self, layer: str, index: int, x: Tensor, y: Tensor) -> Tensor:
        if f"{layer}_down" not in self.own:
            return y
        rank = self.settings.rank
        update = self.own[f"{layer}_up"][index] @ self.own[f"{layer}_down"][index]
        return y + (self.settings.alpha or rank) / rank * (x @ update.T)


class Ssf(Literal):
    def patches(self, x: Tensor) -> Tensor:
        return x * self.own["patch_scale"] + self.own["patch_shift"]

    def final(self, x: Tensor) -> Tensor:
        return x * self.own["final_scale"] + self.own["final_shift"]

    def behind(self, layer: str, index: int, x: Tensor, y: Tensor) -> Tensor:
        if layer == "mlp":
            return y
        name = "qkv" if layer in "qkv" else layer
        scale, shift = self.own[f"{name}_scale"][index], self.own[f"{name}_shift"][index]
        if layer in "qkv":
            part = slice("qkv".index(layer) * y.shape[-1], ("qkv".index(layer) + 1) * y.shape[-1])
            scale, shift = scale[part], shift[part]
        return y * scale + shift


class Mlp(Literal):
    def features(self, features: list[Tensor]) -> list[Tensor]:
        own, out = self.own, []
        for head, x in enumerate(features):
            for i in range(self.settings.num_layers - 1):
                x = F.relu(x @ own["weight"][i, head].T + own["bias"][i, head])
                mean, var = own["running_mean"][i, head], own["running_var"][i, head]
                x = F.batch_norm(
                    x,
                    mean.detach().clone(),
                    var.detach().clone(),
                    own["norm_scale"][i, head],
                    own["norm_shift"][i, head],
                    training=self.step.training,
                )
                shape = (len(features), *x.shape)
                factor = keep(shape, self.settings.dropout, self.step, "mlp.dropout", i)
                x = x if isinstance(factor, float) else x * factor[head]
            out.append(x)
        return out


class Sidetune(Literal):
    def __call__(self, backbone: Backbone, x: Tensor, state: MemberState) -> Tensor:
        self.images = x
        return super().__call__(backbone, x, state)

    def features(self, features: list[Tensor]) -> list[Tensor]:
        s, own = self.images, self.own
        for i in range(4):
            s = F.relu(F.conv2d(s, own[f"conv{i}_weight"], own[f"conv{i}_bias"], 2, 1))
        side = s.mean((2, 3)) @ own["project"].T
        share = 1 / (1 + torch.exp(-own["blend"]))
        joint = share * torch.cat(features, -1) + (1 - share) * side
        return list(joint.split(features[0].shape[-1], -1))


class Weights(Literal):
    """Runs timm's own forward pass on a state dict."""

    def __call__(self, backbone: Backbone, x: Tensor, state: MemberState) -> Tensor:
        names = {k: k.removeprefix(f"{self.name}.").replace("/", ".") for k in state}
        own = {names[k]: v for k, v in state.items() if k.startswith(self.name)}
        whole = {**dict(backbone.named_parameters()), **own}
        vit = {k.removeprefix("vit."): v for k, v in whole.items()}
        tokens = functional_call(_Tokens(backbone), {f"vit.{k}": v for k, v in vit.items()}, (x,))
        features = [tokens[:, 0], tokens[:, 1]] if backbone.layout.has_dist else [tokens]
        logits = [
            f @ state[f"{name}.weight"].T + state[f"{name}.bias"]
            for f, name in zip(features, ("head", "head_dist"), strict=False)
        ]
        return checks.loss_of(torch.stack(logits).mean(0))


class _Tokens(torch.nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.vit, self.has_dist = backbone.vit, backbone.layout.has_dist

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.vit.forward_features(x)
        return tokens if self.has_dist else self.vit.forward_head(tokens, pre_logits=True)


ORACLES = {
    "adapter": Adapter,
    "adaptformer": AdaptFormer,
    "lora": Lora,
    "ssf": Ssf,
    "mlp": Mlp,
    "sidetune": Sidetune,
    "full": Weights,
    "partial": Weights,
    "bias": Weights,
}
CONFIGS = {
    "adapter": of("adapter", bottleneck=3, train__drop_path=0.4),
    "adaptformer": of("adaptformer", bottleneck=5, train__drop_path=0.4),
    "adaptformer learnable": of("adaptformer", bottleneck=5, scale="learnable", head_norm=True),
    "lora": of("lora", rank=3, alpha=5.0, train__drop_path=0.4),
    "lora everywhere": of("lora", rank=2, targets="q,k,v,o,fc1,fc2"),
    "ssf": of("ssf", train__drop_path=0.4),
    "mlp": of("mlp", num_layers=3, dropout=0.3),
    "sidetune": of("sidetune", channels=2),
    "full": of("full"),
    "partial": of("partial", num_blocks=1),
    "bias": of("bias"),
}


def literal(
    backbone: Backbone, config: TrialConfig, state: MemberState, x: Tensor, step: Step
) -> Tensor:
    (name,) = config.methods
    return ORACLES[name](state, config, step)(backbone, x, state)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CONFIGS)
def test_forward_and_gradients_equal_the_literal_reference(name: str, kind: str, mode: str) -> None:
    # Of two samples a norm over the batch leaves the signs, and of gradients little but rounding.
    samples = 5 if name == "adaptformer learnable" else 2
    checks.equals_literal(kind, CONFIGS[name], mode, literal, samples)


PACKS = {
    "adapter": [of("adapter", m, bottleneck=1 + 3 * m, train__drop_path=0.2 * m) for m in range(3)],
    "adaptformer": [of("adaptformer", m, bottleneck=2 + m, scale=0.1 + m) for m in range(3)],
    "adaptformer learnable": [
        of("adaptformer", m, bottleneck=2 + m, scale="learnable", head_norm=True) for m in range(3)
    ],
    "lora": [of("lora", m, rank=1 + m, alpha=[None, 2.0, 7.0][m]) for m in range(3)],
    "lora everywhere": [of("lora", m, rank=4 - m, targets="q,k,v,o,fc1,fc2") for m in range(3)],
    "ssf": [of("ssf", m, init_std=0.1 * m, train__drop_path=0.2 * m) for m in range(3)],
    "mlp": [of("mlp", m, dropout=0.2 * m) for m in range(3)],
    "sidetune": [of("sidetune", m, channels=1 + m) for m in range(3)],
}


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("kind", ["cls", "distilled"])
@pytest.mark.parametrize("name", PACKS)
def test_members_equal_their_solo_runs(name: str, kind: str, mode: str) -> None:
    checks.members_equal_solo(PACKS[name], kind, mode, samples=5)


ZERO = {
    "adapter": of("adapter", bottleneck=0),
    "adaptformer": of("adaptformer", bottleneck=0, head_norm=True),
    "lora": of("lora", rank=0),
    "mlp": of("mlp", num_layers=1),
    "sidetune": of("sidetune", channels=0),
    "partial": of("partial", num_blocks=0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ZERO)
def test_no_capacity_is_the_backbone_and_head_to_the_bit(name: str, kind: str) -> None:
    checks.is_backbone_and_head(ZERO[name], kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "config",
    [of("adapter"), of("adaptformer"), of("lora", targets="q,k,v,o,fc1,fc2"),
     of("ssf", init_std=0.0), of("full"), of("partial"), of("bias")],
    ids=lambda config: config.methods[0],
)  # fmt: skip
def test_training_starts_at_the_backbone_to_the_bit(config: TrialConfig, kind: str) -> None:
    backbone = tiny_backbone(kind, dtype=torch.float32)
    x = images(backbone)
    state = init_member_state(backbone, config, NUM_CLASSES)
    heads = {k: v for k, v in state.items() if k.startswith("head")}
    ours = PackModel(backbone, [config], NUM_CLASSES, [state]).forward_blocks(x, EVAL)
    linear = PackModel(backbone, [trial(["linear"])], NUM_CLASSES, [heads])
    plain = linear.forward_blocks(x, EVAL)
    for mine, theirs in zip(ours.blocks, plain.blocks, strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(ours.output.logits, plain.output.logits)


COUNTS = {
    "adapter": (of("adapter", bottleneck=8), 156_768),
    "adaptformer": (of("adaptformer"), 1_189_632),
    "adaptformer 8": (of("adaptformer", bottleneck=8), 156_768),
    "adaptformer learnable": (of("adaptformer", scale="learnable"), 1_189_632 + 12),
    "lora": (of("lora"), 294_912),
    "ssf": (of("ssf"), 205_824),
    "bias": (of("bias"), 102_912),
    "partial 1": (of("partial"), 7_087_872 + 1_536),
    "partial 4": (of("partial", num_blocks=4), 4 * 7_087_872 + 1_536),
    "mlp": (of("mlp", num_layers=3), 2 * (768**2 + 3 * 768)),
    "full": (of("full"), 85_798_656),
    "sidetune": (of("sidetune"), 9 * 16 * (3 + 42 * 16) + 15 * 16 + 8 * 16 * 768 + 1),
}


@pytest.mark.parametrize("name", COUNTS)
def test_number_of_trained_parameters(name: str) -> None:
    config, count = COUNTS[name]
    assert checks.count_without_head(config) == count


@pytest.mark.parametrize("name", CONFIGS)
def test_flops_are_those_that_torch_counts(name: str) -> None:
    assert checks.uncounted_flops(CONFIGS[name]) == 0


def test_a_shared_backbone_is_never_changed() -> None:
    backbone = tiny_backbone()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    for name in ("full", "partial", "bias"):
        pack = PackModel(backbone, [CONFIGS[name]], NUM_CLASSES)
        checks.shake(pack)
        pack(images(backbone), EVAL).logits.sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())


def test_partial_keeps_no_graph_below_its_blocks() -> None:
    backbone = tiny_backbone()
    found = PackModel(backbone, [of("partial")], NUM_CLASSES).forward_blocks(images(backbone), EVAL)
    assert not found.tokens.requires_grad and not found.blocks[0].requires_grad
    assert found.blocks[1].requires_grad


def test_partial_takes_blocks_by_index_and_the_norm_of_averaging_models() -> None:
    state = init_member_state(tiny_backbone("no_cls"), of("partial"), NUM_CLASSES)
    tops = {k.split("/")[1] for k in state if k.startswith("partial")}
    blocks = {k.split("/")[2] for k in state if "blocks" in k}
    assert (tops, blocks) == ({"blocks", "fc_norm"}, {"1"})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (of("partial", num_blocks=3), "partial.num_blocks must be <= 2.*got 3"),
        (trial(["full", "vpt"]), "'full' trains the backbone that 'vpt' expects to be frozen"),
    ],
)
def test_what_cannot_be_trained_is_refused(config: TrialConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(config, num_classes=NUM_CLASSES, backbone=tiny_backbone())


def test_methods_that_share_no_hook_can_be_chained() -> None:
    backbone = tiny_backbone()
    config = trial(["lora", "mlp"])
    output = PackModel(backbone, [config], NUM_CLASSES)(images(backbone), EVAL)
    assert output.logits.shape == (1, 3, NUM_CLASSES)


def test_full_leaves_the_classifier_of_the_weights_alone() -> None:
    pair = (torch.zeros(7, 32), torch.zeros(7))
    backbone = Backbone(tiny_backbone().vit, classifier=[pair])
    names = PackModel(backbone, [of("full")], NUM_CLASSES).tensors.specs[0]
    assert len(names) == 2 + len(list(backbone.vit.parameters()))


def test_bias_needs_a_bias() -> None:
    backbone = tiny_backbone()
    for module in backbone.modules():
        if getattr(module, "bias", None) is not None:
            module.bias = None
    with pytest.raises(ConfigError, match="this backbone has 0 of them"):
        PackModel(backbone, [of("bias")], NUM_CLASSES)


@pytest.mark.parametrize("method", ["ssf", "lora"])
def test_layers_of_an_unknown_mlp_are_refused(method: str) -> None:
    backbone = tiny_backbone()
    backbone.vit.blocks[1].mlp = torch.nn.Identity()
    config = of(method, **({"targets": "q,fc1"} if method == "lora" else {}))
    with pytest.raises(ConfigError, match="two linear layers, got Identity in block 1"):
        PackModel(backbone, [config], NUM_CLASSES)


def test_lora_targets_are_checked_and_put_in_order() -> None:
    assert of("lora", targets="fc1, q").method_settings["lora"].targets == "q,fc1"
    for wrong in ("q,w", "q,q", ""):
        with pytest.raises(ConfigError, match="lora.targets must list some of q, k, v, o"):
            of("lora", targets=wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_ssf_is_a_plain_backbone(kind: str) -> None:
    backbone = tiny_backbone(kind)
    pack = PackModel(backbone, [of("ssf")], NUM_CLASSES)
    checks.shake(pack)
    x = images(backbone)
    merged = ssf.merge(backbone, pack.tensors.state(0))
    features = merged.read(_through(merged, x[0]))
    checks.close(pack.head(features[None]), pack(x, EVAL).logits)
    assert not any(parameter.requires_grad for parameter in merged.parameters())


def _through(backbone: Backbone, x: Tensor) -> Tensor:
    tokens = backbone.embed(x)
    for block in backbone.blocks:
        tokens = block(tokens)
    return tokens


def test_ssf_merges_into_layers_without_bias() -> None:
    backbone = tiny_backbone()
    backbone.vit.blocks[0].attn.qkv.bias = None
    pack = PackModel(backbone, [of("ssf")], NUM_CLASSES)
    checks.shake(pack)
    x = images(backbone)
    merged = ssf.merge(backbone, pack.tensors.state(0))
    features = merged.read(_through(merged, x[0]))
    checks.close(pack.head(features[None]), pack(x, EVAL).logits)
    assert backbone.vit.blocks[0].attn.qkv.bias is None


def test_zero_zero_adapters_learn_their_last_bias_only() -> None:
    backbone = tiny_backbone()
    pack = PackModel(backbone, [of("adapter", init="zero_zero")], NUM_CLASSES)
    pack(images(backbone), EVAL).logits.square().sum().backward()
    grads = {k: p.grad for k, p in pack.tensors.trainable().items() if not k.startswith("head")}
    moving = {k for k, g in grads.items() if g is not None and g.any()}
    assert moving == {"adapter.up_bias"}


def test_running_statistics_follow_the_batches_as_in_pytorch() -> None:
    backbone, config = tiny_backbone(), of("mlp", num_layers=2, dropout=0.0)
    pack = PackModel(backbone, [config], NUM_CLASSES)
    state = pack.tensors.state(0)
    norm = torch.nn.BatchNorm1d(32, dtype=torch.float64)
    for i in range(3):
        x = images(backbone, samples=4, seed=i)
        features, _ = pack.forward_features(x, EVAL)
        hidden = features[0] @ state["mlp.weight"][0, 0].T + state["mlp.bias"][0, 0]
        norm(F.relu(hidden))
        pack.classify(features, training_step([config], [0], [i]))
    checks.close(pack.tensors.state(0)["mlp.running_mean"][0, 0], norm.running_mean)
    checks.close(pack.tensors.state(0)["mlp.running_var"][0, 0], norm.running_var)
    before = pack.tensors.state(0)
    one = pack.classify(features[:, :1], training_step([config], [0], [3]))
    assert torch.isfinite(one.logits).all(), "a batch of one uses the running statistics"
    assert all(torch.equal(v, before[k]) for k, v in pack.tensors.state(0).items())


def test_mlp_heads_leave_the_features_to_be_cached() -> None:
    pack = PackModel(tiny_backbone(), [of("mlp")], NUM_CLASSES)
    assert pack.features_are_frozen


@pytest.mark.parametrize(
    ("name", "decaying"),
    [
        ("adapter", {"down_weight", "up_weight"}),
        ("adaptformer learnable", {"down_weight", "up_weight", "running_mean", "running_var"}),
        ("lora", {"q_down", "q_up", "v_down", "v_up"}),
        ("ssf", set()),
        ("mlp", {"weight", "running_mean", "running_var"}),
        ("sidetune", {"project", *(f"conv{i}_weight" for i in range(4))}),
        ("bias", set()),
    ],
)
def test_vectors_do_not_decay(name: str, decaying: set[str]) -> None:
    """Running statistics are never touched by the optimiser, whatever stands there."""
    specs = PackModel(tiny_backbone(), [CONFIGS[name]], NUM_CLASSES).tensors.specs[0]
    found = {n.split(".")[1] for n, spec in specs.items() if spec.decay and n[:4] != "head"}
    assert found == decaying


def test_norms_of_a_trained_backbone_decay_and_biases_do_not() -> None:
    specs = PackModel(tiny_backbone(), [of("full")], NUM_CLASSES).tensors.specs[0]
    assert specs["full.vit/norm/weight"].decay and not specs["full.vit/norm/bias"].decay
