"""README.md of an exported trial: what it is, on what, how good, how it was measured, how to load.

Nothing stands in it that is not known: what a checkpoint or a study does not say is left out.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tcpa_core.exports.base import Written
from tcpa_core.exports.licence import NOT_RECORDED
from tcpa_core.model.timm_names import NANO
from tcpa_core.record.scores import CALLED, TASK, score_of
from tcpa_core.settings import BackboneConfig

SPLITS = ("train", "val", "test")
_CALLED = {"classify": "image-classification", "segment": "image-segmentation"}
_METRICS = {"classify": "accuracy", "segment": "mean_iou"}
"""The Hub's words for tasks and their scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A number of the trial, and of the other seeds of its setting where there are some."""

    name: str
    """"test accuracy", a fraction in [0, 1]."""
    value: float
    """Of this trial."""
    by_seed: Mapping[int, float] = field(default_factory=dict)
    """Of all trials of the setting, this one included; {}: only this one is known."""
    mean: float | None = None
    low: float | None = None
    """Student's 95 % interval of the mean over seeds; None: there is none."""
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a study knows of a trial beyond its checkpoint."""

    study: str = ""
    trial: str = ""
    measured: Sequence[Measured] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    """What was recorded of the data set: name, images by split, classes, fingerprint, notes."""
    protocol: str | None = None
    deviations: Sequence[str] = ()
    """Where the trial differs from its protocol, or its methods from their papers."""
    selection: str = ""
    """How far the trial came and how it was chosen, as sentences."""
    git: str = ""
    """State of the code."""


def card(about: Mapping[str, Any], usage: str, written: Written) -> str:
    """The card as Markdown, with the Hub's metadata before it.

    Args:
        about: Our section of config.json.
        usage: Python that loads the folder.
    """
    head = "\n".join(f"{key}: {json.dumps(value)}" for key, value in _metadata(about, written))
    body = "\n\n".join(part for part in _parts(about, usage, written) if part)
    return f"---\n{head}\n---\n\n{body}\n"


def _metadata(about: Mapping[str, Any], written: Written) -> Iterator[tuple[str, Any]]:
    """YAML in which every value is JSON, which YAML reads."""
    config, facts = about["config"], about["facts"]
    task = str(config.get(TASK, "classify"))
    yield "library_name", written.library
    yield "pipeline_tag", _CALLED[task]
    yield "tags", [_CALLED[task], "visual-prompt-tuning", *config["methods"]]
    licence = about["licence_of_weights"]
    if licence != NOT_RECORDED and " " not in licence:
        yield "license", licence
    if config["backbone.weights"] is None and str(about["weights"]).startswith("hub:"):
        yield "base_model", f"timm/{str(about['weights']).removeprefix('hub:').replace('@', '.')}"
    if facts["measured"] and facts["data"]:
        kind = {"name": facts["data"]["name"], "type": config["data.name"]}
        metrics = [
            {"type": _METRICS[task], "name": one["name"], "value": one["value"]}
            for one in facts["measured"]
        ]
        name = facts["study"] or "-".join(config["methods"])
        results = [{"task": {"type": _CALLED[task]}, "dataset": kind, "metrics": metrics}]
        yield "model-index", [{"name": name, "results": results}]


def _parts(about: Mapping[str, Any], usage: str, written: Written) -> Iterator[str]:
    config, facts = about["config"], about["facts"]
    methods = " + ".join(config["methods"])
    of = f" Trial {facts['trial']}" if facts["trial"] else ""
    of += f" of study {facts['study']}." if facts["study"] and of else "." if of else ""
    backbone = BackboneConfig(name=config["backbone.name"], tag=config.get("backbone.tag"))
    yield f"# {methods} on {backbone.full_name}"
    trained = about["trained_parameters"]
    yield (
        f"{backbone.full_name} tuned by {methods}: {trained['all']:,} trained parameters, "
        f"{trained['without_head']:,} without the head, {len(about['classes'])} classes.{of}"
    )
    yield f"```python\n{usage}```"
    yield "\n".join(written.notes)
    yield _measured(facts["measured"], about)
    yield _data(facts["data"], about)
    yield _protocol(about)
    yield _backbone(about, backbone, written.has_backbone)
    check = about["check"]
    yield (
        "## Check\n\nRead back before it was given away: logits differ from the trial's by at most "
        f"{check['max_difference']:.1e} (largest logit {check['largest_logit']:.2f}) on "
        f"{check['pictures']}. Made with "
        + ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        + (f", code {facts['git']}." if facts["git"] else ".")
    )


def _measured(measured: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> str:
    selected = about["selected"] or {}
    lines = [_line(one) for one in measured]
    score = score_of(about["config"])
    if not lines and selected.get(score.val) is not None:
        lines = [f"- {CALLED[score.val]} {selected[score.val]:.4f}"]
    if not lines:
        return ""
    if selected.get("epoch"):
        lines.append(f"- epoch {selected['epoch']}, chosen by {about['config']['train.selection']}")
    said = about["facts"]["selection"]
    return "\n".join(["## How good it is", "", *lines, *([f"\n{said}"] if said else [])])


def _line(one: Mapping[str, Any]) -> str:
    text = f"- {one['name']} {one['value']:.4f}"
    if len(one["by_seed"]) < 2:
        return f"{text} (one seed, so without an interval)"
    interval = ""
    if one["low"] is not None:
        interval = f", 95 % interval {one['low']:.4f} to {one['high']:.4f} (Student)"
    return f"{text}; mean over {len(one['by_seed'])} seeds {one['mean']:.4f}{interval}"


def _data(data: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    config = about["config"]
    lines = [f"- {data['name'] if data else config['data.name']}, {len(about['classes'])} classes"]
    images = data.get("images", {})
    if images:
        counts = ", ".join(f"{images[split]:,} {split}" for split in SPLITS if split in images)
        lines.append(f"- images: {counts}")
    if about["data"]:
        lines.append(f"- fingerprint `{about['data']}`")
    lines += [f"- {note}" for note in data.get("notes", ())]
    pre = about["preprocessing"]
    lines.append(
        f"- preprocessing: {_seen(config, pre)}, {pre['interpolation']}"
        f"{'' if pre['antialias'] else ' without antialiasing'}, mean {pre['mean']}, std "
        f"{pre['std']}"
    )
    return "\n".join(["## Data", "", *lines])


def _seen(config: Mapping[str, Any], pre: Mapping[str, Any]) -> str:
    """What the network sees of a picture."""
    side = pre["img_size"]
    if config.get(TASK) == "segment":
        short = config["data.resize_to"] or side * 256 // 224
        squashed = pre["crop_mode"] == "squash"
        size = f"squashed to {side} px" if squashed else f"its short side of {short} px"
        slides = config["segment.window"] == "slide"
        views = f"in windows of {side} px that slide over it" if slides else "at once"
        return f"the whole picture, {size}, {views}"
    crop = "the whole picture, squashed" if pre["crop_mode"] == "squash" else "a centre crop"
    return f"{crop}, to {side} px"


def _protocol(about: Mapping[str, Any]) -> str:
    config, facts = about["config"], about["facts"]
    lines = [
        f"- {config['train.epochs']} epochs, {config['optim.name']}, lr {config['optim.lr']:g}, "
        f"weight decay {config['optim.weight_decay']:g}, batch {config['train.batch_size']}, seed "
        f"{config['seed']}; all settings are in config.json"
    ]
    protocol = facts["protocol"] or config["protocol"]
    if protocol:
        lines.insert(0, f"- published protocol: {protocol}")
    lines += [f"- deviation: {text}" for text in facts["deviations"]]
    return "\n".join(["## Protocol", "", *lines])


def _backbone(about: Mapping[str, Any], backbone: BackboneConfig, is_inside: bool) -> str:
    file = about["config"]["backbone.weights"]
    where = "which are in this folder" if is_inside else "which are not in this folder"
    if file is None and backbone.full_name == NANO and not is_inside:
        where = "which come with tcpa-search"
    of = "" if file in (None, "random") else f" of {file}"
    lines = [f"- {backbone.full_name}, weights{of} `{about['weights']}`, {where}"]
    lines.append(f"- licence of the weights: {about['licence_of_weights']}")
    return "\n".join(["## Backbone", "", *lines])
