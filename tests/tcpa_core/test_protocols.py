"""Published protocols: presets of settings, and trials that differ from the one they claim."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from spaces.load import load_space, space_of, stored_space
from spaces.space import Space
from tcpa_core.chain import deviations
from tcpa_core.config import ADDED, TrialConfig, known_paths
from tcpa_core.errors import ConfigError, PluginError
from tcpa_core.protocols.base import fixed_settings, load_protocol, protocol_names

METHODS = {
    "tcpa-hta": ["vfpt", "tcpa"],
    "vpt-vtab": ["vpt"],
    "vpt-fgvc": ["vpt"],
    "vpt-adamw": ["adapter"],
    "cvpt-vtab": ["cvpt"],
    "cvpt-fgvc": ["cvpt"],
    "cvpt-ade20k": ["cvpt"],
    "vpt-ade20k": ["vpt"],
    "ssf": ["ssf"],
    "ssf-fgvc": ["ssf"],
    "ssf-cifar": ["ssf"],
    "vpetl-vtab": ["lora"],
    "vpetl-fgvc": ["lora"],
    "sa2vp": ["sa2vp"],
    "vp": ["vp"],
}
"""What the authors of each train."""


def config(**paths: Any) -> TrialConfig:
    return TrialConfig.from_flat({key.replace("__", "."): value for key, value in paths.items()})


def test_protocols_are_those_we_document(shared: Path) -> None:
    assert set(protocol_names()) == set(METHODS)
    text = (shared / "specs" / "methods.md").read_text().split("### 0.4")[1].split("### 0.5")[0]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    specified = {re.match(r"\| `([a-z0-9-]+)`", line)[1] for line in rows}  # type: ignore[index]
    # The specification's `ssf` is both; V-PETL is no program of a method's authors, and
    # segmentation came later.
    younger = {"ssf-fgvc", "ssf-cifar", "vpetl-vtab", "vpetl-fgvc", "cvpt-ade20k", "vpt-ade20k"}
    assert specified == set(METHODS) - younger


@pytest.mark.parametrize("name", METHODS)
def test_a_protocol_gives_what_a_trial_does_not_name(name: str) -> None:
    protocol = load_protocol(name)
    assert set(protocol.settings) <= set(known_paths())
    assert len(set(protocol.not_reproduced)) == len(protocol.not_reproduced) > 0
    trial = config(protocol=name, methods=METHODS[name])
    assert deviations(trial) == ()
    flat = trial.flat()
    fixed = fixed_settings(name, METHODS[name])  # ranges are tuples there, lists in a trial
    assert json.loads(json.dumps(fixed)) == {path: flat[path] for path in fixed}
    assert TrialConfig.from_flat(flat) == trial
    for path, wanted in protocol.settings.items():  # every value that the authors used is one
        for value in wanted if isinstance(wanted, tuple) else (wanted,):
            if path in flat:
                assert deviations(trial.replace_paths({path: value})) == ()


CITATION = re.compile(r"[A-Za-z0-9_./-]+\.(py|yaml|sh|ipynb|md):[1-9][0-9]*")


@pytest.mark.parametrize("name", METHODS)
def test_every_value_names_where_it_was_read(name: str) -> None:
    protocol = load_protocol(name)
    assert re.fullmatch(r"[\w-]+/[\w.-]+ @ [0-9a-f]{12}", protocol.program)
    facts = [
        *protocol.facts.values(),
        *(f for m in protocol.of_methods.values() for f in m.values()),
    ]
    for where in [*(fact.where for fact in facts), *protocol.not_reproduced.values()]:
        assert CITATION.fullmatch(where), where


PREPARED = ("data.resize", "data.interpolation", "data.antialias", "data.random_crop", "data.flip",
            "data.norm_stats", "train.drop_last")  # fmt: skip
FACTS: dict[str, tuple[Any, ...]] = {
    "tcpa-hta": ("short_side", "bilinear", True, True, True, "imagenet", False),
    "vpt-vtab": ("squash", "bilinear", False, False, False, "imagenet", False),
    "vpt-fgvc": ("short_side", "bilinear", True, True, True, "imagenet", False),
    "vpt-adamw": (None, "bilinear", (True, False), None, None, "imagenet", False),
    "cvpt-vtab": ("squash", "bicubic", True, False, False, "imagenet", True),
    "cvpt-fgvc": ("short_side", "bilinear", True, True, True, "imagenet", False),
    "cvpt-ade20k": ("short_side", "bilinear", False, True, True, "imagenet", True),
    "vpt-ade20k": ("short_side", "bilinear", False, True, True, "imagenet", True),
    "ssf": ("squash", "bicubic", True, False, False, "half", True),
    "ssf-fgvc": ("short_side", "bicubic", True, False, True, "half", True),
    "ssf-cifar": ("short_side", "bicubic", True, False, True, "half", True),
    "vpetl-vtab": ("squash", "bilinear", True, False, (True, False), "imagenet", False),
    "vpetl-fgvc": ("short_side", "bilinear", True, True, True, "imagenet", False),
    "sa2vp": (None, "bilinear", True, None, None, "half", True),
    "vp": (None, None, None, False, False, ("imagenet", "checkpoint"), False),
}
"""How each prepares images and whether its loader drops the last small batch; None: not fixed."""

TRAINED = ("optim.name", "optim.warmup_fraction", "train.epochs", "train.batch_size",
           "train.label_smoothing", "train.mixup_alpha", "train.selection", "train.head_init",
           "train.drop_path", "train.dropout", "data.train_on")  # fmt: skip
RECIPES: dict[str, tuple[Any, ...]] = {
    "tcpa-hta": ("adamw", 0.2, 100, 128, 0.1, 0.8, "best_test_epoch", "torch_default", 0.0, 0.0,
                 "train"),
    "vpt-vtab": ("sgd", 0.1, 100, (64, 128), 0.0, 0.0, "last_epoch", "vpt", 0.0, 0.0,
                 "train_and_val"),
    "vpt-fgvc": ("sgd", 0.1, 100, 128, 0.0, 0.0, "last_epoch", "vpt", 0.0, 0.0, "train"),
    "vpt-adamw": ("adamw", 0.05, 100, 384, 0.0, 0.0, "last_epoch", "vpt", 0.0, 0.0, None),
    "cvpt-vtab": ("adamw", 0.1, 100, 32, 0.0, 0.0, "best_test_epoch", "torch_default", 0.1, 0.0,
                  "train_and_val"),
    "cvpt-fgvc": ("adamw", 0.1, 100, 32, 0.0, 0.0, "best_test_epoch", "torch_default", 0.1, 0.0,
                  "train"),
    "cvpt-ade20k": ("sgd", 0.0, 127, 16, 0.0, 0.0, "last_epoch", None, 0.0, 0.1, "train_and_val"),
    "vpt-ade20k": ("sgd", 0.0, 127, 16, 0.0, 0.0, "last_epoch", None, 0.0, 0.0, "train_and_val"),
    "ssf": ("adamw", 0.1, 100, 64, 0.0, 0.0, "best_test_epoch", "trunc02", None, 0.0,
            "train_and_val"),
    "ssf-fgvc": ("adamw", 0.1, 100, 64, 0.1, 0.8, "best_test_epoch", "trunc02", (0.0, 0.1), 0.0,
                 "train_and_val"),
    "ssf-cifar": ("adamw", (0.1, 5 / 30), (100, 30), (128, 256), 0.1, 0.8, "best_test_epoch",
                  "trunc02", (0.0, 0.1), 0.0, "train_and_val"),
    "vpetl-vtab": ("adamw", 0.1, 100, 64, (0.1, 0.0), 0.0, "best_test_epoch", "torch_default", 0.1,
                   0.0, "train_and_val"),
    "vpetl-fgvc": ("adamw", 0.1, 100, (128, 64), 0.0, 0.0, "best_test_epoch", "torch_default", 0.1,
                   0.0, "train"),
    "sa2vp": ("adamw", 0.1, 100, (64, 40, 128), 0.0, 0.0,
              ("best_val", "last_epoch", "best_test_epoch"), "trunc02", 0.0, 0.1, None),
    "vp": ("sgd", None, 1000, (128, 256), 0.0, 0.0, ("best_val", "best_test_epoch"), None, 0.0, 0.0,
           None),
}  # fmt: skip


CHANGED = ("data.resized_crop", "data.crop_ratio", "data.train_interpolation", "data.auto_augment",
           "data.color_jitter", "data.erase_prob", "data.erase_mode", "train.mixup_prob",
           "train.cutmix_alpha", "train.mixup_switch_prob", "data.resize_to")  # fmt: skip
RRC = ((0.08, 1.0),), ((0.75, 4 / 3),), "random"
AUGMENTED: dict[str, tuple[Any, ...]] = {
    "ssf-fgvc": (*RRC, None, None, 0.25, "pixel", 1.0, 1.0, 0.5, 248),
    "ssf-cifar": (*RRC, "rand-m9-mstd0.5-inc1", None, 0.25, "pixel", 1.0, 1.0, 0.5, 248),
    "vpetl-vtab": (None, None, ("bicubic", None), ("rand-m9-mstd0.5-inc1", None), None, 0.0, None,
                   None, 0.0, None, None),
}  # fmt: skip
"""What these do with training images beyond crops, mirroring and mixup; the others do nothing."""


@pytest.mark.parametrize("name", METHODS)
def test_protocols_say_how_training_images_are_changed(name: str) -> None:
    protocol = load_protocol(name)
    wanted = AUGMENTED.get(name)
    if wanted is not None:
        assert tuple(protocol.settings.get(path) for path in CHANGED) == wanted
        return
    trial = config(protocol=name, methods=METHODS[name])
    nothing = {
        "data.resized_crop": None, "data.train_interpolation": None, "data.auto_augment": None,
        "data.color_jitter": None, "data.erase_prob": 0.0, "train.cutmix_alpha": 0.0,
    }  # fmt: skip
    assert nothing.items() <= protocol.settings.items()
    for changed in ({"data.auto_augment": "v0"}, {"train.cutmix_alpha": 1.0}):
        assert len(deviations(trial.replace_paths(changed))) == 1


def test_a_range_that_differs_is_said_as_a_list() -> None:
    trial = config(protocol="ssf-fgvc", methods=["ssf"], data__resized_crop=[0.2, 1.0])
    assert deviations(trial) == ("data.resized_crop=[0.2, 1] (ssf-fgvc: [0.08, 1])",)


@pytest.mark.parametrize("name", METHODS)
def test_protocols_say_what_the_authors_did(name: str) -> None:
    """Read a second time from the authors' programs, apart from the protocol files."""
    settings = load_protocol(name).settings
    assert tuple(settings.get(path) for path in PREPARED) == FACTS[name]
    assert tuple(settings.get(path) for path in TRAINED) == RECIPES[name]


def test_what_is_not_reproduced_is_said_of_those_it_holds_for() -> None:
    said = {name: " ".join(load_protocol(name).not_reproduced) for name in METHODS}
    assert {name for name in METHODS if "42, 44, 82, 100 and 800" in said[name]} == {"vpt-vtab"}
    assert "theirs have none" in said["vpt-fgvc"]
    assert {name for name in METHODS if "every tenth" in said[name]} == {"cvpt-vtab"}
    assert {name for name in METHODS if "each tenth" in said[name]} == {"vpetl-vtab", "vpetl-fgvc"}
    assert not any("last batch" in text for text in said.values()), "train.drop_last says it"
    assert {name for name in METHODS if "fp16" in said[name]} == {
        *("tcpa-hta", "ssf", "ssf-fgvc", "ssf-cifar", "sa2vp"),
    }
    averaged = {name for name in METHODS if "moving average" in said[name]}
    assert averaged == {"ssf-fgvc", "ssf-cifar"}


def test_what_differs_is_said_with_the_published_value() -> None:
    trial = config(
        protocol="vpt-vtab", methods=["vpt"], data__train_on="train", train__selection="best_val",
        train__batch_size=32, optim__lr=7.0, vpt__num_prompts=3,
    )  # fmt: skip
    assert deviations(trial) == (
        "data.train_on=train (vpt-vtab: train_and_val)",
        "train.batch_size=32 (vpt-vtab: 64 or 128)",
        "train.selection=best_val (vpt-vtab: last_epoch)",
    )
    assert deviations(trial.replace_paths({"protocol": None})) == ()


def test_a_protocol_may_say_more_of_one_method() -> None:
    full, bias = (config(protocol="vpt-adamw", methods=[name]) for name in ("full", "bias"))
    assert (full.train.dropout, bias.train.dropout) == (0.1, 0.0)
    assert deviations(full) == deviations(bias) == ()
    silent = full.replace_paths({"train.dropout": 0.0})
    assert deviations(silent) == ("train.dropout=0 (vpt-adamw: 0.1)",)


def test_a_claim_is_no_part_of_the_identity() -> None:
    claimed = config(protocol="cvpt-vtab", methods=["cvpt"])
    plain = claimed.replace_paths({"protocol": None})
    assert claimed.digest("a", "b") == plain.digest("a", "b")
    assert claimed.point("a", "b") == plain.point("a", "b")


def test_settings_that_came_later_change_no_digest_of_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A study begun without them goes on: its trials are known by their digests."""
    monkeypatch.setattr("tcpa_core.config.CORE_VERSION", 4)  # of these studies
    assert config().digest("a", "b") == "fba7e58035bbd082"
    for path, before in ADDED.items():
        assert config().replace_paths({path: before}).digest("a", "b") == "fba7e58035bbd082"
        if isinstance(before, bool):
            other = config().replace_paths({path: not before})
            assert other.digest("a", "b") != "fba7e58035bbd082"
    large = {"data.resize": "short_side", "backbone.img_size": 384}  # 439 pixels before, now 438
    assert TrialConfig.from_flat(large).digest("a", "b") != "6295fef489747080"
    small = TrialConfig.from_flat({**large, "backbone.img_size": 224, "methods": ["vpt"]})
    assert small.digest("a", "b") == "100219d5c42b3c4d"


def test_methods_that_are_not_what_was_published_say_so() -> None:
    assert "no meta-learned start" in deviations(config(methods=["damvp"]))[0]
    assert deviations(config(methods=["damvp"], damvp__meta_init="x.safetensors")) == ()
    assert "from its description" in deviations(config(methods=["lion"]))[0]
    assert "AlexNet" in deviations(config(methods=["sidetune"]))[0]
    assert "T-only" in deviations(config(methods=["tcpa"], tcpa__split_roles=False))[0]
    off = config(methods=["tcpa"], tcpa__split_roles=False, tcpa__match_tokens=False)
    assert deviations(off) == ()
    pair = config(methods=["damvp", "tcpa"], protocol="tcpa-hta", tcpa__lambda_cls=0.5)
    assert len(deviations(pair)) == 2


def test_sections_of_other_methods_are_left_out() -> None:
    flat = config(protocol="tcpa-hta", methods=["linear"]).flat()
    assert not any(path.startswith(("tcpa.", "vfpt.")) for path in flat)
    nested = TrialConfig.from_flat({"protocol": "ssf", "train": {"epochs": 3}, "methods": ["ssf"]})
    assert (nested.train.epochs, nested.train.batch_size) == (3, 64)


def space(text: str, tmp_path: Path, **overrides: Any) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return load_space(str(path), {k.replace("__", "."): v for k, v in overrides.items()})


SPACE = """
name: mine
base: {protocol: cvpt-vtab, train.selection: best_val, data.train_on: train}
axes:
  methods: {choice: [[cvpt], [tcpa]]}
  train.batch_size: {choice: [16, 32]}
budget: {trials: 4}
"""


def test_a_space_is_resolved_with_its_protocol(tmp_path: Path) -> None:
    found = space(SPACE, tmp_path)
    assert found.base["train.drop_path"] == 0.1
    assert found.base["train.epochs"] == 100
    assert found.base["train.selection"] == "best_val"
    assert "train.batch_size" not in found.base
    assert not any(path.startswith("tcpa.") for path in found.base)
    assert found.base["cvpt.position"] == 3
    assert space_of(found.as_dict(), source=found.source) == found
    told = {deviations(found.config(corner, seed=0)) for corner in found.corners()}
    assert {len(one) for one in told} == {2, 3}, "batches of 16 are one more"


def test_what_holds_for_one_method_is_left_to_its_trials(tmp_path: Path) -> None:
    text = SPACE.replace("cvpt-vtab", "vpt-adamw").replace("[cvpt], [tcpa]", "[full], [adapter]")
    found = space(text, tmp_path)
    assert "train.dropout" not in found.base
    assert found.base["adapter.init"] == "zero_zero"
    rates = {c.methods: c.train.dropout for c in (found.config(p, 0) for p in found.corners())}
    assert rates == {("full",): 0.1, ("adapter",): 0.0}


def test_a_protocol_is_checked_where_it_stands(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no protocol 'cvpt-vtb' \(.*line 3\); closest name"):
        space(SPACE.replace("cvpt-vtab", "cvpt-vtb"), tmp_path)
    with pytest.raises(ConfigError, match=r"no protocol 'x' \(--set protocol\)"):
        space(SPACE, tmp_path, protocol="x")
    with pytest.raises(PluginError, match=r"no protocol 'vpt_vtb' in .*; closest name: 'vpt_vtab'"):
        config(protocol="vpt-vtb")
    named = space(SPACE.replace("protocol: cvpt-vtab, ", ""), tmp_path, protocol="ssf")
    assert named.base["data.norm_stats"] == "half"


def test_the_identity_is_that_of_a_files_content(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file, text in zip(files, ("one", "one", "two"), strict=True):
        file.write_text(text)
    digests = [
        config(methods=["damvp"], damvp__meta_init=str(file)).digest("", "") for file in files
    ]
    assert digests[0] == digests[1] != digests[2]
    assert config(methods=["damvp"]).digest("", "") not in digests
    absent = config(methods=["damvp"], damvp__meta_init=str(tmp_path / "d"))
    with pytest.raises(ConfigError, match=r"damvp.meta_init: '.*d' cannot be read \(No such file"):
        absent.digest("", "")


def test_files_of_a_space_lie_beside_it(tmp_path: Path) -> None:
    text = SPACE.replace("base: {", "base: {damvp.meta_init: meta.safetensors, ").replace(
        "[tcpa]", "[damvp]"
    )
    assert space(text, tmp_path).base["damvp.meta_init"] == str(tmp_path / "meta.safetensors")


SWITCHES = {
    "selection": ["train.selection"],
    "norm_stats": ["data.norm_stats"],
    "head_init": ["train.head_init"],
    "backbone_mode": ["train.drop_path", "train.dropout"],
    "train_fraction": ["data.val_fraction", "data.train_on"],
    "dist_role": ["tcpa.dist_role"],
    "cvpt.ca_weights": ["cvpt.weights"],
    "vpt.adamw_wd0": ["optim.adamw_wd0"],
    "frac": ["vfpt.fraction"],
    "dims": ["vfpt.dims"],
    "segments": ["e2vpt.segments"],
    "rewind": ["e2vpt.rewind"],
    "damvp.momentum": ["optim.momentum"],
    "head_lr": ["damvp.lr_scale"],
}
"""Switches of the specification that have another name here."""


def test_every_named_deviation_is_a_setting(shared: Path) -> None:
    text = (shared / "specs" / "methods.md").read_text().split("### 0.6")[1].split("\n---")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")][1:]
    names = [name.strip() for row in rows for name in row.split(",")]
    assert len(names) > 30
    for name in names:
        for path in SWITCHES.get(name, [name]):
            assert path in known_paths(), name


@pytest.mark.parametrize("name", ["vpt-vtab", "cvpt-vtab", "ssf"])
def test_a_recorded_trial_stays_what_it_was(name: str) -> None:
    """A record of all settings from before some existed: the protocol does not fill them in."""
    now = config(protocol=name, methods=METHODS[name])
    changed = {path: now.flat()[path] for path in ADDED if now.flat()[path] != ADDED[path]}
    assert changed, "the protocol fixes one of them"
    recorded = {path: value for path, value in now.flat().items() if path not in ADDED}
    before = TrialConfig.from_flat(recorded)
    assert {path: before.flat()[path] for path in ADDED} == ADDED
    assert len(deviations(before)) == len(changed)
    assert before.digest("", "") != now.digest("", "")


def test_a_study_on_disk_does_not_follow_what_its_protocol_learnt_since(tmp_path: Path) -> None:
    found = space(SPACE, tmp_path)
    stored = found.as_dict()
    assert stored_space(stored, found.source) == found
    for path in ("train.drop_last", "data.antialias", "data.interpolation"):
        del stored["base"][path]
    before = stored_space(stored, found.source)
    assert (found.base["train.drop_last"], before.base["train.drop_last"]) == (True, False)
    trial = before.config(next(iter(before.corners())), seed=0)
    assert (trial.data.antialias, trial.data.interpolation) == (True, "bicubic")
    assert "train.drop_last=false (cvpt-vtab: true)" in deviations(trial)
