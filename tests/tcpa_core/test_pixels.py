"""Prompts in pixels: VP, DAM-VP and AutoVP against their definitions, and what they refuse."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tcpa_core.chain import method_class
from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError, WeightsError
from tcpa_core.methods import damvp
from tcpa_core.methods._output_maps import frequency_map, semantic_map
from tcpa_core.methods._pixels import frozen_features
from tcpa_core.methods.base import FitData, Pass, Step
from tcpa_core.methods.damvp import cluster
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.model.member_tensors import init_member_state, member_specs
from tcpa_core.model.pack_model import PackModel
from tcpa_core.settings import BackboneConfig
from tcpa_core.streams import Stream
from tcpa_core.training.image_source import DRAWS
from tcpa_core.training.pack import Pack
from tcpa_core.training.trial_data import TrialData
from tests.tcpa_core.tiny import (
    KINDS,
    NUM_CLASSES,
    images,
    tiny_backbone,
    trained,
    training_step,
    trial,
)

EVAL = Step.evaluation(1)
RUN = Pass(step=EVAL, rows=None, backend=None)


@pytest.fixture(scope="module")
def nano() -> Backbone:
    """vit_nano, whose file holds a classifier of 180 classes."""
    return load_backbone(BackboneConfig())


def fit_data(backbone: Backbone, count: int = 24, seed: int = 0) -> FitData:
    x = images(backbone, samples=count)[0]
    labels = torch.arange(count) % NUM_CLASSES
    return FitData(labels=labels, batch=lambda indices: x[indices], stream=Stream(seed))


def build(backbone: Backbone, *methods: str, fitted: bool = True, **settings: Any) -> PackModel:
    config = trial(methods, **settings)
    data = fit_data(backbone) if fitted else None
    state = init_member_state(backbone, config, NUM_CLASSES, data)
    return PackModel(backbone, [config], NUM_CLASSES, [state])


def features_of(model: PackModel, x: Tensor, step: Step = EVAL) -> Tensor:
    return model.forward_features(x, step)[0]


def count(method: str, **settings: Any) -> int:
    with torch.device("meta"):
        backbone = Backbone(timm.create_model("vit_base_patch16_224", num_classes=0))
    specs = member_specs(backbone, trial([method], **settings), 10)
    return sum(
        torch.Size(spec.shape).numel()
        for name, spec in specs.items()
        if spec.trainable and not name.startswith("head")
    )


def test_sizes_are_the_papers() -> None:
    assert count("vp") == count("vp", vp__prompt_size=30) == count("damvp") == 69_840
    assert count("vp", vp__kind="fixed_patch") == 3 * 30**2
    assert count("autovp") == 150_528
    assert count("autovp", autovp__train_resize=True) == 150_529


@pytest.mark.parametrize("kind", KINDS)
def test_vp_adds_a_border_and_leaves_the_centre(kind: str) -> None:
    backbone = tiny_backbone(kind)
    model = build(backbone, "vp", vp__prompt_size=3)
    x = images(backbone)
    state = model.tensors.state(0)
    side = backbone.img_size
    prompt = torch.zeros(3, side, side, dtype=torch.float64)
    prompt[:, :3], prompt[:, -3:] = state["vp.top"], state["vp.bottom"]
    prompt[:, 3:-3, :3], prompt[:, 3:-3, -3:] = state["vp.left"], state["vp.right"]
    changed = model.methods["vp"].on_images(x, None)
    torch.testing.assert_close(changed[0], x[0] + prompt)
    assert torch.equal(changed[..., 3:-3, 3:-3], x[..., 3:-3, 3:-3])
    plain = PackModel(backbone, [trial(["linear"])], NUM_CLASSES)
    torch.testing.assert_close(features_of(model, x), features_of(plain, x + prompt))


def test_a_random_patch_moves_in_training_only() -> None:
    backbone = tiny_backbone()
    model = build(backbone, "vp", vp__kind="random_patch", vp__prompt_size=4)
    x = images(backbone)
    assert torch.equal(features_of(model, x), features_of(model, x))
    steps = [training_step(model.configs, [0], [i]) for i in (0, 0, 1, 2, 3)]
    found = [features_of(model, x, step) for step in steps]
    assert torch.equal(found[0], found[1])
    assert any(not torch.equal(found[0], other) for other in found[2:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("vp", {"vp__prompt_size": 0}),
        ("damvp", {"damvp__prompt_size": 0}),
        ("autovp", {"autovp__img_scale": 1.75}),
    ],
)
def test_without_a_prompt_the_backbone_is_untouched(
    kind: str, method: str, settings: dict[str, Any]
) -> None:
    backbone = tiny_backbone(kind)
    model = build(backbone, method, **settings)
    plain = PackModel(backbone, [trial(["linear"])], NUM_CLASSES)
    x = images(backbone)
    assert torch.equal(model(x, EVAL).logits, plain(x, EVAL).logits)
    assert model.features_are_frozen


def test_a_label_map_reads_the_source_classes(nano: Backbone) -> None:
    model = build(nano, "vp", vp__output="label_map", vp__prompt_size=0)
    x = images(nano)
    assert not any(name.startswith("head") for name in model.tensors.trainable())
    expected = nano.source_logits(frozen_features(nano, x[0]))[:, :NUM_CLASSES]
    torch.testing.assert_close(model(x, EVAL).logits[0], expected)


@pytest.mark.parametrize(
    ("methods", "settings", "pattern"),
    [
        (["vp"], {"vp__prompt_size": 16}, r"vp.prompt_size must be at most 15 .* got 16"),
        (["vp"], {"vp__kind": "fixed_patch", "vp__prompt_size": 33}, r"at most 32 .* got 33"),
        (["autovp"], {"autovp__img_scale": 0.05}, r"at least one pixel .* got 0.05"),
        (["damvp"], {"damvp__prompt_size": 16}, r"damvp.prompt_size must be at most 15"),
        (["vp"], {"vp__output": "label_map"}, r"classifier of at least 5 classes, got 0"),
        (["autovp"], {"autovp__mapping": "fc"}, r"classifier of at least .* got 0"),
        (["autovp"], {"autovp__mapping": "freq", "autovp__num_map": 3}, r"at least 15 classes"),
        (["damvp"], {"damvp__meta_init": "nowhere.safetensors"}, r"damvp.meta_init: .* cannot be"),
        (["vp", "damvp"], {"vp__output": "label_map", "damvp__output": "head_free"}, r"cannot be"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(
    methods: list[str], settings: dict[str, Any], pattern: str
) -> None:
    with pytest.raises((ConfigError, WeightsError), match=pattern):
        build(tiny_backbone(), *methods, fitted=False, **settings)


def test_clusters_are_those_of_the_data() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = centres.repeat_interleave(8, 0) + 0.1 * torch.randn(24, 2, generator=generator)
    found = cluster(points, 2.0, 10)
    assert len(found) == 3
    assert torch.cdist(found, centres).min(1).values.max() < 0.2
    assert len(cluster(points, None, 10)) == 3
    assert len(cluster(points, 2.0, 2)) == 2
    assert torch.equal(cluster(points[:1], 2.0, 10), points[:1])


def test_each_image_gets_the_prompt_of_its_cluster() -> None:
    backbone = tiny_backbone()
    settings = {"damvp__prompt_size": 3, "damvp__max_clusters": 3}
    model = build(backbone, "damvp", damvp__distance_threshold=1e-3, **settings)
    state = model.tensors.state(0)
    assert state["damvp.prototypes"].shape == (3, backbone.layout.feature_dim)
    x = images(backbone, samples=6, seed=2)
    distances = torch.cdist(frozen_features(backbone, x[0]), state["damvp.prototypes"])
    changed = model.methods["damvp"].on_images(x, RUN) - x
    for b, nearest in enumerate(distances.argmin(-1)):
        torch.testing.assert_close(changed[0, b, :, :3], state["damvp.top"][nearest])
        torch.testing.assert_close(changed[0, b, :, 3:-3, :3], state["damvp.left"][nearest])


def test_the_cluster_does_not_depend_on_what_is_trained() -> None:
    backbone = tiny_backbone()
    model = build(backbone, "damvp", damvp__prompt_size=3, damvp__distance_threshold=1e-3)
    x = images(backbone, samples=6)
    before = model.methods["damvp"].on_images(x, RUN) - x
    for name, tensor in model.tensors.trainable().items():
        if name.startswith("damvp"):
            tensor.data *= 2
    after = model.methods["damvp"].on_images(x, RUN) - x
    torch.testing.assert_close(after, 2 * before)


def test_head_free_logits_are_features() -> None:
    backbone = tiny_backbone()
    model = build(backbone, "damvp", damvp__output="head_free", damvp__prompt_size=2)
    assert not any(name.startswith("head") for name in model.tensors.trainable())
    chosen = model.tensors.state(0)["damvp.logit_features"].long()
    assert torch.equal(chosen, chosen.sort().values)
    assert len(chosen.unique()) == NUM_CLASSES
    x = images(backbone)
    assert torch.equal(model(x, EVAL).logits, features_of(model, x)[..., chosen])


def test_a_meta_prompt_starts_every_cluster(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    prompt = torch.randn(3, 32, 32)
    path = tmp_path / "meta.safetensors"
    save_file({"prompt": prompt}, path)
    model = build(backbone, "damvp", damvp__prompt_size=4, damvp__meta_init=str(path))
    top = model.tensors.state(0)["damvp.top"]
    assert torch.equal(top, prompt[:, :4].double().expand_as(top))
    save_file({"prompt": prompt[:, :5].contiguous()}, path)
    with pytest.raises(WeightsError, match=r"must hold 'prompt' of shape \(3, 32, 32\)"):
        build(backbone, "damvp", damvp__meta_init=str(path))


def test_autovp_frames_a_smaller_image() -> None:
    backbone = tiny_backbone()
    model = build(backbone, "autovp", autovp__img_scale=0.5)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in backbone.norm_stats("checkpoint"))
    white = ((1 - mean) / std).expand(1, 2, 3, 32, 32).double()
    framed = model.methods["autovp"].on_images(white, None) * std + mean
    side = int(32 * 128 / 224 * 0.5)
    before = (32 - side) // 2
    centre = framed[..., before : before + side, before : before + side]
    torch.testing.assert_close(centre, torch.ones_like(centre))
    assert framed.sum().item() == pytest.approx(2 * 3 * (side**2 + 0.5 * (32**2 - side**2)))


def test_a_trained_scale_starts_at_its_fixed_one_and_learns() -> None:
    backbone = tiny_backbone()
    model = build(backbone, "autovp", autovp__train_resize=True, autovp__img_scale=1.0)
    fixed = build(backbone, "autovp", autovp__img_scale=1.0)
    x = images(backbone)
    pair = [m.methods["autovp"].on_images(x, None) for m in (model, fixed)]
    torch.testing.assert_close(*pair, rtol=0, atol=1e-6)
    model(x, EVAL).logits.square().sum().backward()
    gradient = model.tensors.trainable()["autovp.scale"].grad
    assert gradient is not None
    assert gradient.abs() > 0
    model.tensors.trainable()["autovp.scale"].data.fill_(9.0)
    model.after_step()
    assert model.tensors.trainable()["autovp.scale"].item() == 5.0


def test_half_precision_moves_no_pixel() -> None:
    """In bfloat16 the places that are read would be off by up to half a pixel."""
    backbone = tiny_backbone()
    model = build(backbone, "autovp", autovp__train_resize=True, autovp__img_scale=1.13)
    method: Any = model.methods["autovp"]
    method.prompt.data, method.scale.data = method.prompt.float(), method.scale.float()
    x = images(backbone).float()
    exact = method.on_images(x, None)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(method.on_images(x, None), exact)


def test_frequent_sources_are_mapped_first() -> None:
    counts = torch.tensor([[5.0, 1.0, 0.0], [4.0, 3.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    assert frequency_map(counts, 1).tolist() == [[0], [1], [2]]
    assert frequency_map(torch.zeros(6, 3), 2).tolist() == [[0, 1], [2, 3], [4, 5]]
    taken = frequency_map(torch.rand(8, 3), 2).flatten().tolist()
    assert len(set(taken)) == 6


def test_names_are_mapped_in_rounds() -> None:
    """Both classes like source 0 best; in every round the first class chooses first."""
    source = torch.tensor([[1.0, 0.0], [0.9, 0.3], [0.5, 0.8], [0.0, 2.0]])
    target = torch.tensor([[3.0, 0.0], [1.0, 0.1]])
    assert semantic_map(source, target, 2).tolist() == [[0, 2], [1, 3]]
    assert semantic_map(source, target.flip(0), 1).tolist() == [[0], [1]]


@pytest.fixture
def names_file(nano: Backbone, tmp_path: Path) -> Path:
    """Random text features of five class names and of the shipped classifier's classes."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "source": torch.randn(nano.num_source_classes, 6, generator=generator),
        "target": torch.randn(NUM_CLASSES, 6, generator=generator),
    }
    path = tmp_path / "names.safetensors"
    save_file(tensors, path, {"classes": json.dumps(list("abcde"))})
    return path


def test_a_semantic_map_needs_features_of_these_names(nano: Backbone, names_file: Path) -> None:
    settings = {"autovp__mapping": "semantic", "autovp__text_features": str(names_file)}
    config = trial(["autovp"], **settings)
    method_class("autovp").check_classes(config, list("abcde"))
    with pytest.raises(ConfigError, match=r"class names in order, got 5 \(differs in: f\)"):
        method_class("autovp").check_classes(config, list("abcdf"))
    with pytest.raises(ConfigError, match=r"in order, got 5 \(differs in: their order\)"):
        method_class("autovp").check_classes(config, list("bacde"))
    with pytest.raises(ConfigError, match=r"5 target names, .* have 180 and 7"):
        member_specs(nano, config, 7)
    with pytest.raises(ConfigError, match=r"'semantic' needs autovp.text_features"):
        trial(["autovp"], autovp__mapping="semantic")
    absent = trial(["autovp"], autovp__mapping="semantic", autovp__text_features="nowhere")
    with pytest.raises(WeightsError, match=r"autovp.text_features: 'nowhere' cannot be read"):
        member_specs(nano, absent, NUM_CLASSES)
    save_file({"source": torch.ones(2, 3)}, names_file.with_name("half"))
    half = trial(
        ["autovp"],
        autovp__mapping="semantic",
        autovp__text_features=str(names_file.with_name("half")),
    )
    with pytest.raises(WeightsError, match=r"cannot be read .*target"):
        member_specs(nano, half, NUM_CLASSES)


def test_a_semantic_map_does_not_look_at_images(nano: Backbone, names_file: Path) -> None:
    config = trial(["autovp"], autovp__mapping="semantic", autovp__text_features=str(names_file))
    images_ = images(nano, samples=2)[0]
    labels = torch.zeros(2, dtype=torch.long)
    data = FitData(
        labels=labels, batch=lambda i: images_[i], stream=Stream(0), class_names=tuple("abcde")
    )
    state = init_member_state(nano, config, NUM_CLASSES, data)
    with safe_open(names_file, "pt") as file:
        expected = semantic_map(file.get_tensor("source"), file.get_tensor("target"), 1)
    assert torch.equal(state["autovp.source_classes"].long(), expected)


@pytest.mark.parametrize("mapping", ["fc", "freq", "iter"])
def test_source_logits_are_mapped(nano: Backbone, mapping: str) -> None:
    model = build(nano, "autovp", autovp__mapping=mapping, autovp__num_map=2)
    x = images(nano)
    state = model.tensors.state(0)
    source = nano.source_logits(features_of(model, x)[0])
    if mapping == "fc":
        expected = source @ state["autovp.fc_weight"].T + state["autovp.fc_bias"]
    else:
        chosen = state["autovp.source_classes"].long()
        expected = torch.stack([source[:, row].mean(1) for row in chosen], dim=1)
    torch.testing.assert_close(model(x, EVAL).logits[0], expected, rtol=1e-5, atol=1e-5)


def test_an_iterative_map_follows_the_training(nano: Backbone) -> None:
    """By hand: predictions of the prompted training images, counted, every second epoch."""
    images_ = images(nano, samples=20, seed=8)[0].float()
    labels = torch.arange(20) % NUM_CLASSES
    pack = Pack(nano, random_data(images_, labels, NUM_CLASSES))
    settings = {"autovp__mapping": "iter", "autovp__map_every": 2, "autovp__num_map": 2}
    config = trial(["autovp"], train__epochs=4, optim__lr=3.0, **settings)
    member = pack.new_member("t", config)
    start = member.state["autovp.source_classes"]
    maps = []
    for _ in range(4):
        (member,) = trained(pack.run_epoch([member]))
        maps.append(member.state["autovp.source_classes"])
        if member.epoch == 2:
            model = PackModel(nano, [config], NUM_CLASSES, [member.state])
            taken = nano.source_logits(features_of(model, images_[None])[0]).argmax(-1)
            counts = torch.zeros(nano.num_source_classes, NUM_CLASSES)
            for source, label in zip(taken, labels, strict=True):
                counts[source, label] += 1
            assert torch.equal(maps[1].long(), frequency_map(counts, 2))
            assert member.moments, "the optimiser goes on"
    assert torch.equal(maps[0], start)
    assert not torch.equal(maps[1], start)
    assert torch.equal(maps[2], maps[1])
    assert torch.equal(maps[3], maps[1]), "no map is made behind the last epoch"
    assert member.selected is not None
    assert torch.equal(
        member.selected.state["autovp.source_classes"], maps[max(member.selected.epoch - 2, 0)]
    )


def random_data(x: Tensor, labels: Tensor, num_classes: int) -> TrialData:
    """The same normalised images (n, 3, H, H) as all three splits."""

    class Source:
        where = torch.device("cpu")
        num_draws = DRAWS

        def __init__(self) -> None:
            self.labels = labels

        def __len__(self) -> int:
            return len(labels)

        def batch(self, indices: Tensor | slice, draws: object = None) -> Tensor:
            return x[indices]

        def load(self, indices: Tensor | slice, draws: object = None) -> Callable[[], Tensor]:
            return lambda: self.batch(indices, draws)

    sources: Any = {name: Source() for name in ("train", "val", "test")}
    names = tuple("abcdefg"[:num_classes])
    return TrialData(**sources, class_names=names, fingerprint="random")


def test_images_are_assigned_as_they_were_clustered(nano: Backbone) -> None:
    """Features that clusters and maps are made of do not depend on autocast."""
    x = images(nano, samples=24)
    model = build(nano, "damvp", damvp__distance_threshold=1e-3)
    prompts = model.methods["damvp"].on_images(x, RUN) - x
    features = frozen_features(nano, x[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(frozen_features(nano, x[0]), features)
        assert torch.equal(model.methods["damvp"].on_images(x, RUN) - x, prompts)
        assert nano.source_logits(features).dtype == torch.float32


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("vp", {"vp__prompt_size": 4}),
        ("vp", {"vp__output": "label_map"}),
        ("damvp", {"damvp__output": "head_free", "damvp__prompt_size": 0}),
        ("autovp", {}),
        ("autovp", {"autovp__mapping": "fc"}),
        ("autovp", {"autovp__mapping": "freq", "autovp__num_map": 3}),
    ],
)
def test_a_head_is_counted_where_there_is_one(
    method: str, settings: dict[str, Any], nano: Backbone
) -> None:
    """Against torch's counter, by the growth with the batch; the last block's shortcut is off."""
    averaged = load_backbone(BackboneConfig(pool="avg"))
    with_classes = Backbone(
        averaged.vit, classifier=list(zip(*[iter(nano._classifier)] * 2, strict=True))
    )
    model = build(with_classes, method, **settings)
    counted = []
    for samples in (1, 4):
        x = images(with_classes, samples=samples)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(x, EVAL)
        counted.append(counter.get_total_flops())
    assert (counted[1] - counted[0]) / 3 == model.flops_per_image()


@pytest.mark.parametrize("method", ["vp", "damvp", "autovp"])
def test_tcpa_runs_on_the_prompted_image(method: str) -> None:
    backbone = tiny_backbone()
    model = build(backbone, method, "tcpa", tcpa__prompt_dropout=0.0)
    alone = {k: v for k, v in model.tensors.state(0).items() if not k.startswith(method)}
    tcpa = PackModel(backbone, [trial(["tcpa"], tcpa__prompt_dropout=0.0)], NUM_CLASSES, [alone])
    x = images(backbone)
    prompted = model.methods[method].on_images(x, RUN)
    torch.testing.assert_close(model(x, EVAL).logits, tcpa(prompted, EVAL).logits)
    (model(x, EVAL).penalty.sum()).backward()
    pixel = next(v for k, v in model.tensors.trainable().items() if k.startswith(method))
    assert pixel.grad is not None, "the matching loss reaches the pixels"
    assert pixel.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("changed", "train_rows"),
    [({}, 24), ({"data.flip": True}, 96), ({"train.mixup_alpha": 0.5}, 96)],
)
def test_images_that_do_not_change_are_assigned_once(
    changed: dict[str, Any], train_rows: int, nano: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second pass of the backbone is made once for an image, where it is the same again."""
    data = random_data(images(nano, samples=24)[0], torch.arange(24) % NUM_CLASSES, NUM_CLASSES)
    flat = {"methods": ["damvp"], "damvp.distance_threshold": 1e-3, "train.batch_size": 9}
    configs = [TrialConfig.from_flat({**flat, **changed, "seed": m}) for m in range(2)]
    rows: list[int] = []

    def reports() -> list[list[float]]:
        pack = Pack(nano, data)
        members = [pack.new_member(str(m), config) for m, config in enumerate(configs)]
        with monkeypatch.context() as patch:
            patch.setattr(
                damvp, "frozen_features", lambda b, x: rows.append(len(x)) or frozen_features(b, x)
            )
            rows.clear()
            for _ in range(2):
                members = trained(pack.run_epoch(members))
        return [[r.train_loss, r.val_loss, r.val_accuracy] for m in members for r in m.reports]

    cached = reports()
    assert sum(rows) == train_rows + 24, "and those of validation once"
    nearest = damvp.Method._nearest
    monkeypatch.setattr(
        damvp.Method, "_nearest", lambda s, x, step: nearest(s, x, replace(step, unchanged=None))
    )
    assert reports() == cached
    assert sum(rows) == 2 * 2 * (24 + 24)
