"""The network of a segmentation: maps of tokens, heads with an axis of members, other sizes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tcpa_core import plugins
from tcpa_core.chain import method_class, pack_capacity, pack_key, splits_batch
from tcpa_core.config import METHODS, TrialConfig
from tcpa_core.errors import ConfigError, ShapeError
from tcpa_core.methods.base import Step
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.model.member_tensors import init_member_state
from tcpa_core.model.pack_model import PackModel
from tcpa_core.training.costs import training_costs
from tcpa_core.training.estimate import memory
from tests.tcpa_core import checks, oracle
from tests.tcpa_core.tiny import (
    NUM_CLASSES,
    images,
    tiny_backbone,
    tiny_vit,
    training_step,
    trial,
)

EVAL = Step.evaluation(1)
HEADS: dict[str, dict[str, Any]] = {
    "linear": {"head": "linear", "blocks": [1, 2]},
    "setr_pup": {"head": "setr_pup", "auxiliary_blocks": [1, 2], "dropout": 0.5},
    "upernet": {"head": "upernet", "auxiliary_blocks": [1]},
}
SEGMENTS = sorted(
    name for name in plugins.names(METHODS) if not method_class(name).hides_map(trial([name]))
)
"""Methods that can be trained for it, with their defaults."""
DIFFERENT: dict[str, list[dict[str, Any]]] = {
    "vpt": [{"vpt__num_prompts": 2}, {"vpt__num_prompts": 5}],
    "cvpt": [{"cvpt__num_prompts": 3}, {"cvpt__num_prompts": 1}],
    "gated": [{"gated__num_prompts": 4}, {"gated__num_prompts": 2}],
    "lora": [{"lora__rank": 2}, {"lora__rank": 4}],
}
"""Settings in which the members of a pack differ."""


def segment(methods: list[str], seed: int = 0, head: str = "linear", **paths: Any) -> TrialConfig:
    settings = {f"segment__{key}": value for key, value in HEADS[head].items()}
    settings |= {"task__name": "segment", "segment__channels": 4, **paths}
    return trial(methods, seed, **settings)


def build(backbone: Backbone, *configs: TrialConfig) -> PackModel:
    return PackModel(backbone, configs, NUM_CLASSES)


def parts(pack: PackModel, x: Tensor, step: Step) -> list[Tensor]:
    """Logits, auxiliary ones, gradients and what the pass leaves of its statistics, (M, ...)."""
    out = pack(x, step)
    logits = [out.logits, *(one for _, one in out.side_logits)]
    trained = pack.tensors.trainable().values()
    loss = sum((one.sin().square().sum() for one in logits), out.penalty.sum())
    grads = torch.autograd.grad(loss, list(trained), allow_unused=True)
    return [*logits, *(g for g in grads if g is not None), *pack.tensors.fixed().values()]


@pytest.mark.parametrize(
    ("name", "head"),
    [(name, "setr_pup") for name in SEGMENTS] + [("vpt", "linear"), ("cvpt", "upernet")],
)
def test_a_member_segments_as_it_would_alone(name: str, head: str) -> None:
    backbone = tiny_backbone()
    different = DIFFERENT.get(name, [{}, {}])
    configs = [segment([name], seed, head, **own) for seed, own in enumerate(different)]
    if pack_capacity(configs[0]) == 1:
        configs = configs[:1]
    states = [checks.fitted(backbone, config) for config in configs]
    pack = PackModel(backbone, configs, NUM_CLASSES, states)
    x = images(backbone, members=len(configs))
    places = [3 + m for m in range(len(configs))]
    packed = parts(pack, x, training_step(configs, places, places))
    for m, config in enumerate(configs):
        alone = PackModel(backbone, [config], NUM_CLASSES, states[m : m + 1])
        step = training_step([config], places[m : m + 1], places[m : m + 1])
        for together, solo in zip(packed, parts(alone, x[m : m + 1], step), strict=True):
            own = together[m][tuple(slice(0, size) for size in solo.shape[1:])]
            checks.close(own, solo[0])
        checks.close(
            pack.predict(x, Step.evaluation(len(x)))[m], alone.predict(x[m : m + 1], EVAL)[0]
        )


@pytest.mark.parametrize("kind", ["cls", "registers", "distilled"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("linear", {}),
        ("vpt", {"vpt__num_prompts": 3}),
        ("vpt", {"vpt__num_prompts": 3, "vpt__deep": False}),
        ("vpt", {"vpt__num_prompts": 3, "vpt__deep": False, "vpt__position": "end"}),
        ("cvpt", {"cvpt__num_prompts": 3}),
        ("tcpa", {"tcpa__num_cls_prompts": 2, "tcpa__num_image_prompts": 4}),
    ],
)
def test_maps_are_the_image_tokens_behind_the_blocks(
    name: str, settings: dict[str, Any], kind: str
) -> None:
    """Compared with passes whose prompts are ordinary tokens; neither they nor a prefix is seen."""
    backbone = tiny_backbone(kind)
    config = segment([name], **settings)
    state = init_member_state(backbone, config, NUM_CLASSES)
    x = images(backbone)
    found, _ = PackModel(backbone, [config], NUM_CLASSES, [state]).forward_features(x, EVAL)
    embedded = backbone.embed(x[0])
    result = oracle.RUN_BLOCKS[name](backbone, config, state, embedded, EVAL)
    rows, columns = backbone.layout.grid
    for k, tokens in enumerate(result.blocks):
        image = tokens[:, -rows * columns :]
        for row in range(rows):
            for column in range(columns):
                checks.close(found[0, :, k, row, column], image[:, row * columns + column])


@pytest.mark.parametrize(
    ("name", "settings", "in_training"),
    [
        ("linear", {}, False),
        ("vpt", {"vpt__num_prompts": 3}, False),
        ("cvpt", {"segment__auxiliary_blocks": [2]}, True),
        ("tcpa", {}, True),  # its matching loss is summed over all blocks
    ],
)
def test_no_block_is_run_of_which_nothing_is_read(
    name: str, settings: dict[str, Any], in_training: bool
) -> None:
    backbone = tiny_backbone()
    config = segment([name], **{"segment__blocks": [1], **settings})
    pack, x, run = build(backbone, config), images(backbone), []
    backbone.blocks[1].mlp.register_forward_hook(lambda *_: run.append("mlp"))
    logits = pack.predict(x, EVAL)
    assert not run
    assert torch.equal(logits, pack(x, EVAL).logits)
    run.clear()
    pack(x, training_step([config], [0], [0]))
    assert bool(run) == in_training
    run.clear()
    assert len(pack.forward_blocks(x, EVAL).blocks) == 2 and run


def literal_setr(state: Mapping[str, Tensor], name: str, convolutions: int, factor: int) -> Any:
    """mmsegmentation's SETRUPHead, written out."""
    width = len(state[f"{name}.norm.weight"])
    norm = nn.LayerNorm(width, eps=1e-6).double()
    layers: list[nn.Module] = []
    for i in range(convolutions):
        weight = state[f"{name}.conv{i}.weight"]
        conv = nn.Conv2d(weight.shape[1], len(weight), 3, padding=1, bias=False)
        conv.weight = nn.Parameter(weight)
        layers += [conv, _batch_norm(state, f"{name}.conv{i}.norm"), nn.ReLU()]
        layers.append(nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False))
    layers.append(_classifier(state, name))
    _set(norm, state, f"{name}.norm")
    decoder = nn.Sequential(*layers).double()

    def run(tokens_BHWD: Tensor, training: bool) -> Tensor:
        decoder.train(training)
        return decoder(norm(tokens_BHWD).permute(0, 3, 1, 2))

    run.decoder = decoder  # type: ignore[attr-defined]
    return run


def _set(module: Any, state: Mapping[str, Tensor], name: str) -> None:
    own = {
        part: state[f"{name}.{part}"].clone() for part in module.state_dict() if "num_" not in part
    }
    module.load_state_dict(own, strict=False)


def _batch_norm(state: Mapping[str, Tensor], name: str) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(len(state[f"{name}.weight"])).double()
    _set(norm, state, name)
    return norm


def _classifier(state: Mapping[str, Tensor], name: str) -> nn.Conv2d:
    weight = state[f"{name}.weight"]
    found = nn.Conv2d(weight.shape[1], len(weight), 1).double()
    _set(found, state, name)
    return found


def shaken(backbone: Backbone, config: TrialConfig) -> dict[str, Tensor]:
    """A member's tensors, all away from their first values."""
    state = init_member_state(backbone, config, NUM_CLASSES)
    generator = torch.Generator().manual_seed(3)
    for name, tensor in state.items():
        moved = 0.2 * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        state[name] = tensor + (moved.abs() if name.endswith("running_var") else moved)
    return state


@pytest.mark.parametrize("training", [False, True])
def test_setr_pup_equals_a_literal_module(training: bool) -> None:
    backbone = tiny_backbone()
    config = segment(["linear"], head="setr_pup", segment__dropout=0.0)
    state = shaken(backbone, config)
    pack = PackModel(backbone, [config], NUM_CLASSES, [state])
    x = images(backbone)
    step = training_step([config], [0], [0]) if training else EVAL
    out = pack(x, step)
    tokens = oracle.RUN_BLOCKS["linear"](backbone, config, state, backbone.embed(x[0]), EVAL).blocks
    maps = [one[:, backbone.layout.num_prefix :].unflatten(1, (4, 4)) for one in tokens]
    main = literal_setr(state, "head", 4, 2)
    logits = main(maps[1], training)
    assert logits.shape[-2:] == (64, 64)
    checks.close(out.logits[0], logits)
    assert len(out.side_logits) == (2 if training else 0)
    for block, (share, auxiliary) in enumerate(out.side_logits):
        assert share == 0.4
        literal = literal_setr(state, f"head.auxiliary{block + 1}", 2, 4)
        checks.close(auxiliary[0], literal(maps[block], training))
    statistics = pack.tensors.state(0)
    for i in range(4):
        for part in ("running_mean", "running_var"):
            kept = getattr(main.decoder[4 * i + 1], part)
            checks.close(statistics[f"head.conv{i}.norm.{part}"], kept)
            assert training != torch.equal(kept, state[f"head.conv{i}.norm.{part}"])


def published_upernet(state: Mapping[str, Tensor], width: int) -> nn.Module:
    """segmentation-models-pytorch's decoder with a member's weights."""
    decoder = UPerNetDecoder([3, 1, *[width] * 4], encoder_depth=5, decoder_channels=4).double()
    names = {f"feature_norms.{i}": f"norm{i}" for i in range(4)}
    convolutions = {f"psp.blocks.{i}.1": f"pool{size}" for i, size in enumerate((1, 2, 3, 6))}
    convolutions |= {"psp.out_conv": "pooled", "fusion_block": "fusion"}
    for i in range(3):  # theirs begin with the coarsest of these levels
        convolutions[f"fpn_lateral_blocks.{i}.conv_norm_relu"] = f"lateral{2 - i}"
        convolutions[f"fpn_conv_blocks.{i}"] = f"output{2 - i}"
    for theirs, ours in convolutions.items():
        names |= {f"{theirs}.0": ours, f"{theirs}.1": f"{ours}.norm"}
    loaded = {
        f"{theirs}.{part}": state[f"head.{ours}.{part}"]
        for theirs, ours in names.items()
        for part in ("weight", "bias", "running_mean", "running_var")
        if f"head.{ours}.{part}" in state
    }
    missing, unexpected = decoder.load_state_dict(loaded, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    return decoder


def literal_levels(state: Mapping[str, Tensor], training: bool) -> list[nn.Module]:
    """BEiT's fpn1 to fpn4."""

    def doubling(number: int) -> nn.ConvTranspose2d:
        weight = state[f"head.double{number}.weight"]
        found = nn.ConvTranspose2d(len(weight), len(weight), 2, stride=2).double()
        _set(found, state, f"head.double{number}")
        return found

    norm = _batch_norm(state, "head.double_norm").train(training)
    finest = nn.Sequential(doubling(0), norm, nn.GELU(), doubling(1))
    return [finest, doubling(2), nn.Identity(), nn.MaxPool2d(2)]


@pytest.mark.parametrize("training", [False, True])
def test_upernet_equals_the_published_decoder(training: bool) -> None:
    backbone = tiny_backbone("dynamic")  # 6 x 6 tokens: an odd number of rows at the coarsest level
    config = segment(["linear"], head="upernet")
    state = shaken(backbone, config)
    pack = PackModel(backbone, [config], NUM_CLASSES, [state])
    x = images(backbone)
    out = pack(x, training_step([config], [0], [0]) if training else EVAL)
    tokens = oracle.RUN_BLOCKS["linear"](backbone, config, state, backbone.embed(x[0]), EVAL).blocks
    maps = [one[:, 1:].unflatten(1, (6, 6)).permute(0, 3, 1, 2) for one in tokens]
    read = [maps[0], maps[0], maps[1], maps[1]]  # of two blocks each is read twice
    levels = [level(one) for level, one in zip(literal_levels(state, training), read, strict=True)]
    picture = torch.zeros(len(x[0]), 3, 96, 96)
    decoder = published_upernet(state, backbone.layout.embed_dim).train(training)
    features = decoder([picture, picture[:, :1], *levels])
    checks.close(out.logits[0], _classifier(state, "head")(features))
    kept = decoder.get_buffer("psp.blocks.0.1.1.running_var")
    checks.close(pack.tensors.state(0)["head.pool1.norm.running_var"], kept)


def test_the_four_levels_read_blocks_at_equal_distances() -> None:
    backbone = tiny_backbone()
    depths = {2: (0, 1), 6: (1, 2, 4, 5), 12: (2, 5, 8, 11), 24: (5, 11, 17, 23)}
    for depth, blocks in depths.items():
        layout = backbone.layout.__class__(
            **{
                **{name: getattr(backbone.layout, name) for name in backbone.layout.__slots__},
                "depth": depth,
            }
        )
        config = segment(["linear"], head="upernet", segment__auxiliary_blocks=[])
        task = plugins.load("tcpa_core.tasks", "segment").Task
        specs = task.head_specs(layout, config, NUM_CLASSES)
        tensors = {name: torch.zeros(1, *spec.shape) for name, spec in specs.items()}
        assert task.head(layout, [config], tensors).blocks == blocks


@pytest.mark.parametrize("kind", ["cls", "registers", "distilled", "no_cls", "eva02", "pe"])
def test_pictures_of_other_sizes_are_seen_as_timm_sees_them(kind: str) -> None:
    """A model of one size takes them as timm's model does that was made for any size."""
    backbone = tiny_backbone(kind)
    any_size = tiny_vit(kind, dynamic_img_size=True).double().eval()
    any_size.load_state_dict(backbone.vit.state_dict(), strict=True)
    x = torch.randn(
        1, 2, 3, 24, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    before = backbone.embed(images(backbone)[0])
    pack = build(backbone, segment(["linear"], segment__blocks=[2]))
    with torch.no_grad():
        found, _ = pack.forward_features(x, EVAL)
        seen = any_size.forward_intermediates(x[0], indices=[1], intermediates_only=True)
    # timm makes rotations in float32.
    checks.close(found[0, :, 0].permute(0, 3, 1, 2), seen[0], limit=1e-7)
    # What comes next is of the model's own size again.
    assert torch.equal(backbone.embed(images(backbone)[0]), before)
    with pytest.raises(ShapeError, match=r"shape \(1, B, 3, height, width\).* multiples of 8 pix"):
        pack(x[..., :-1], EVAL)
    with pytest.raises(ShapeError, match=r"shape \(1, B, 3, 32, 32\)"):
        build(backbone, trial(["linear"]))(x, EVAL)


def test_position_embeddings_are_resampled_for_other_sizes() -> None:
    backbone = tiny_backbone()
    x = torch.zeros(1, 3, 40, 16, dtype=torch.float64)
    with backbone.sized_for(x):
        tokens = backbone.embed(x)
    resampled = resample_abs_pos_embed(backbone.vit.pos_embed, [5, 2], [4, 4], 1)
    bias = backbone.vit.patch_embed.proj.bias
    checks.close(tokens[0, 1:], resampled[0, 1:] + bias)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("method", ["linear", "partial"])
def test_what_frozen_blocks_make_of_images_can_be_kept(method: str, head: str) -> None:
    backbone = tiny_backbone()
    config = segment(
        [method], head=head, **({"partial__num_blocks": 1} if method == "partial" else {})
    )
    state = shaken(backbone, config)
    x, step = images(backbone), training_step([config], [0], [0])
    pack, other = (PackModel(backbone, [config], NUM_CLASSES, [state]) for _ in range(2))
    kept = pack.forward_frozen(x)
    found, plain = pack.forward_trained(kept, step), other(x, step)
    checks.close(found.logits, plain.logits)
    for (_, ours), (_, theirs) in zip(found.side_logits, plain.side_logits, strict=True):
        checks.close(ours, theirs)


def test_a_member_keeps_its_running_statistics() -> None:
    backbone = tiny_backbone()
    config = segment(["vpt"], head="setr_pup")
    pack = build(backbone, config)
    start = pack.tensors.state(0)
    pack(images(backbone), training_step([config], [0], [0]))
    state = pack.tensors.state(0)
    moved = {name for name, tensor in state.items() if not torch.equal(tensor, start[name])}
    assert moved == {name for name in state if ".running_" in name}
    again = PackModel(backbone, [config], NUM_CLASSES, [state])
    x = images(backbone, seed=4)
    assert torch.equal(again.predict(x, EVAL), pack.predict(x, EVAL))
    assert torch.equal(
        pack.tensors.state(0)["head.conv0.norm.running_mean"], state["head.conv0.norm.running_mean"]
    )


def test_batches_are_not_cut_where_a_head_looks_at_all_of_them() -> None:
    assert splits_batch(segment(["vpt"]))
    assert not splits_batch(segment(["vpt"], segment__auxiliary_blocks=[1]))
    assert not splits_batch(segment(["vpt"], head="setr_pup"))
    assert not splits_batch(segment(["vpt"], head="upernet"))


def test_members_of_other_heads_share_no_pack() -> None:
    keys = {pack_key(segment(["vpt"], head=head)) for head in HEADS}
    keys |= {pack_key(segment(["vpt"], segment__channels=8)), pack_key(trial(["vpt"]))}
    assert len(keys) == len(HEADS) + 2


REFUSED: list[tuple[list[str], dict[str, Any], str]] = [
    (["mlp"], {}, r"cannot train 'mlp', which changes the one vector of a picture \(on_features\)"),
    (["lion"], {}, r"cannot train 'lion', which changes the one vector of a picture"),
    (["sidetune"], {}, r"cannot train 'sidetune', which changes the one vector of a picture"),
    (["sa2vp"], {}, r"cannot train 'sa2vp', which changes the one vector .*\(side_features\)"),
    (["autovp"], {}, "cannot train 'autovp', which shrinks pictures"),
    (["damvp"], {}, "cannot train 'damvp', which chooses a border by the whole of a picture"),
    (
        ["vp"],
        {"vp__output": "label_map"},
        "cannot train 'vp', which maps classes .* unless vp.output=head",
    ),
    (["vpt"], {"vpt__pool_prompts": True}, "averages its prompts .* unless vpt.pool_prompts=false"),
    (["adaptformer"], {"adaptformer__head_norm": True}, "unless adaptformer.head_norm=false"),
    (["vp"], {"segment__window": "whole"}, "segment.window=whole takes pictures of any size"),
    (
        ["vpt"],
        {"segment__stride": 33},
        "segment.stride must be at most backbone.img_size, 32, got 33",
    ),
    (["vpt"], {"segment__blocks": [3]}, r"segment.blocks must be blocks of .*, 1 to 2, got \[3\]"),
    (
        ["vpt"],
        {"segment__auxiliary_blocks": [2, 9]},
        r"segment.auxiliary_blocks must be .* \[2, 9\]",
    ),
]


@pytest.mark.parametrize(("methods", "settings", "sentence"), REFUSED)
def test_what_cannot_segment_is_refused_in_a_sentence(
    methods: list[str], settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build(tiny_backbone(), segment(methods, **settings))


@pytest.mark.parametrize(("head", "blocks"), [("setr_pup", [1, 2]), ("upernet", [2])])
def test_a_head_that_reads_another_number_of_blocks_is_refused(
    head: str, blocks: list[int]
) -> None:
    with pytest.raises(ConfigError, match=rf"segment.blocks must be \d of .*segment.head={head}"):
        segment(["vpt"], head=head, segment__blocks=blocks)


@pytest.mark.parametrize("head", HEADS)
def test_flops_of_a_head_are_those_of_its_products(head: str) -> None:
    backbone = tiny_backbone("dynamic")
    pack = build(backbone, segment(["linear"], head=head))
    maps, _ = pack.forward_features(images(backbone, samples=1), EVAL)
    with FlopCounterMode(display=False) as counter:
        pack.head(maps, pack.head.blocks, EVAL)
    assert pack.flops_per_image() - backbone.flops_per_image() == counter.get_total_flops()


def test_every_method_that_cannot_segment_is_known() -> None:
    """A new method says whether it can, or is refused because of a hook that it has."""
    unable = {"autovp", "damvp", "lion", "mlp", "sa2vp", "sidetune"}
    assert set(plugins.names(METHODS)) - set(SEGMENTS) == unable
    text = (
        (Path(__file__).parents[2] / "docs/segmentation.md")
        .read_text()
        .partition("## Methods")[2]
        .partition("## ")[0]
    )
    can, _, cannot = text.partition("The others are refused")
    assert all(f"`{name}`" in can for name in SEGMENTS)
    assert all(f"`{name}`" in cannot for name in unable)


@pytest.mark.parametrize("name", SEGMENTS)
def test_every_method_sees_pictures_of_other_sizes_or_says_that_it_does_not(name: str) -> None:
    backbone = tiny_backbone()
    config = segment([name], segment__window="whole", segment__blocks=[1, 2])
    if not method_class(name).any_size:
        with pytest.raises(ConfigError, match=f"of which '{name}' has one"):
            build(backbone, config)
        return
    pack = PackModel(backbone, [config], NUM_CLASSES, [shaken(backbone, config)])
    x = torch.randn(1, 2, 3, 24, 48, dtype=torch.float64)
    # Tokens that see each other see the whole picture: one picture does not change another.
    both, one = pack.predict(x, EVAL), pack.predict(x[:, 1:], EVAL)
    assert both.shape == (1, 2, NUM_CLASSES, 3, 6)
    checks.close(one[:, 0], both[:, 1])
    attention = pack.forward_attention(x)
    assert len(attention.blocks) == backbone.layout.depth


@pytest.mark.parametrize("head", HEADS)
def test_logits_are_in_float32_where_the_rest_is_in_half_precision(head: str) -> None:
    backbone = tiny_backbone(dtype=torch.float32)
    configs = [segment(["vpt"], seed, head) for seed in range(2)]
    pack, exact = build(backbone.halved(), *configs), build(backbone, *configs)
    x = images(backbone, members=2)
    with torch.autocast("cpu", torch.bfloat16):
        out = pack(x, training_step(configs, [0, 0], [0, 0]))
        half = pack.predict(x, Step.evaluation(2))
    assert {one.dtype for one in (half, out.logits, *(t for _, t in out.side_logits))} == {
        torch.float32
    }
    exact(x, training_step(configs, [0, 0], [0, 0]))  # moves the statistics as well
    checks.close(half, exact.predict(x, Step.evaluation(2)), limit=0.1)


def test_a_single_value_of_a_channel_is_normalised_by_the_running_statistics() -> None:
    """Of one picture the coarsest average is one value, which has no variance."""
    backbone = tiny_backbone()
    config = segment(["linear"], head="upernet")
    pack = PackModel(backbone, [config], NUM_CLASSES, [shaken(backbone, config)])
    before = pack.tensors.state(0)
    out = pack(images(backbone, samples=1), training_step([config], [0], [0]))
    after = pack.tensors.state(0)
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert "head.pool1.norm.running_mean" in still and "head.pool2.norm.running_mean" not in still
    assert torch.isfinite(out.logits).all()


@pytest.mark.parametrize("head", HEADS)
def test_frozen_maps_of_the_same_images_are_made_once_for_all_members(head: str) -> None:
    backbone = tiny_backbone()
    configs = [segment(["linear"], seed, head) for seed in range(3)]
    states = [shaken(backbone, config) for config in configs]
    pack = PackModel(backbone, configs, NUM_CLASSES, states)
    x = images(backbone)
    with FlopCounterMode(display=False) as counter:
        found = pack.predict(x.expand(3, -1, -1, -1, -1), Step.evaluation(3))
    heads = 3 * pack.head.flops(backbone.layout.grid, NUM_CLASSES)  # type: ignore[operator,union-attr]
    samples = x.shape[1]
    assert counter.get_total_flops() < samples * (1.5 * backbone.flops_per_image() + heads)
    for m, config in enumerate(configs):
        alone = PackModel(backbone, [config], NUM_CLASSES, states[m : m + 1])
        checks.close(found[m], alone.predict(x, EVAL)[0])


@pytest.mark.parametrize("head", HEADS)
def test_pictures_of_one_row_of_tokens_are_seen_too(head: str) -> None:
    pack = build(tiny_backbone(), segment(["vpt"], head=head))
    x = torch.randn(1, 1, 3, 8, 40, dtype=torch.float64)
    assert torch.isfinite(pack.predict(x, EVAL)).all()


def test_memory_that_is_planned_is_what_a_step_keeps() -> None:
    """Counted from shapes alone, and on the real network."""
    config = segment(["vpt"], head="setr_pup", segment__channels=8)
    planned = memory(config, NUM_CLASSES, bf16=False)
    assert planned is not None
    backbone = load_backbone(config.backbone)
    side = backbone.img_size
    x = torch.zeros(1, 2, 3, side, side)
    real = training_costs(PackModel(backbone, [config], NUM_CLASSES), x, cached=False)
    assert planned.per_image - 12 * side**2 == pytest.approx(real.activation_bytes, rel=0.02)
    masks = 4 * NUM_CLASSES * side**2
    assert real.activation_bytes > masks  # logits are enlarged to the mask


def test_dropout_takes_whole_channels_of_a_picture() -> None:
    backbone = tiny_backbone()
    configs = [segment(["linear"], seed, segment__dropout=0.5) for seed in range(2)]
    pack = build(backbone, *configs)
    token = torch.randn(2, 4, 2, 1, 1, 32, dtype=torch.float64)
    maps = token.expand(2, 4, 2, 3, 5, 32)  # equal at all places
    step = training_step(configs, [0, 0], [0, 0])
    logits, _ = pack.head(maps, pack.head.blocks, step)
    whole, _ = pack.head(maps, pack.head.blocks, Step.evaluation(2))
    for one in (logits, whole):
        checks.close(one, one[..., :1, :1].expand_as(one))
    assert not torch.allclose(logits, whole)
    weight = pack.tensors.stacked["head.weight"].detach()[:, :, :, 0, 0]
    normed = torch.cat([F.layer_norm(token[:, :, k, 0, 0], (32,), eps=1e-6) for k in (0, 1)], -1)
    bias = pack.tensors.stacked["head.bias"].detach()[:, None]
    checks.close(whole[..., 0, 0], torch.einsum("mbd,mcd->mbc", normed, weight) + bias)
    # What is left is scaled up: on the average nothing changes.
    rows = torch.stack(
        [
            pack.head(maps, pack.head.blocks, training_step(configs, [0, 0], [s, s]))[0]
            for s in range(64)
        ]
    )
    checks.close(rows.mean(0), whole, limit=0.5)
