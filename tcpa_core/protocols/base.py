"""What a published protocol is, and where a trial that claims one differs from it.

A protocol is one public file of this folder: `tcpa_hta.py` is the protocol "tcpa-hta" and exports
`PROTOCOL`. A space or trial that says `protocol: tcpa-hta` takes the protocol's value for every
setting that it does not name itself; what it names otherwise is a deviation, which plans, records
and tables repeat. What authors tuned for each data set (rates, decay, sizes) is not fixed. Every
value names file and line of the authors' program that it was read from.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tcpa_core import plugins

PROTOCOLS = "tcpa_core.protocols"


class Fact(NamedTuple):
    """The published value of a setting."""

    value: Any
    """A tuple lists all values that the authors used; the first is taken where a trial names
    none. A value that is itself a tuple stands in one."""
    where: str
    """File and line of their program, for example "src/data/transforms.py:23"."""


def unaugmented(where: str) -> Mapping[str, Fact]:
    """Facts of a program that changes training images by crops, mirroring and mixup at most.

    Args:
        where: Its line that makes training images.
    """
    nothing = {
        "data.resized_crop": None,
        "data.train_interpolation": None,
        "data.auto_augment": None,
        "data.color_jitter": None,
        "data.erase_prob": 0.0,
        "train.cutmix_alpha": 0.0,
    }
    return {path: Fact(value, where) for path, value in nothing.items()}


FINE_GRAINED: Mapping[str, Fact] = {
    "data.resize": Fact("short_side", "src/data/transforms.py:23"),
    "data.resize_to": Fact(None, "src/data/transforms.py:15"),
    "data.interpolation": Fact("bilinear", "src/data/transforms.py:23"),
    "data.antialias": Fact(True, "src/data/transforms.py:23"),
    "data.random_crop": Fact(True, "src/data/transforms.py:24"),
    "data.flip": Fact(True, "src/data/transforms.py:25"),
    "data.norm_stats": Fact("imagenet", "src/data/transforms.py:9"),
    "data.split": Fact("hta", "src/data/datasets/json_dataset.py:38"),
    "train.drop_last": Fact(False, "src/data/loader.py:58"),
    **unaugmented("src/data/transforms.py:23"),
}
"""Images of the fine-grained data sets as VPT prepares them, and CVPT, which has the same files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How the authors of a method trained and selected."""

    program: str
    """Repository and commit of the authors' program."""
    facts: Mapping[str, Fact]
    """What is fixed, by dotted path."""
    of_methods: Mapping[str, Mapping[str, Fact]] = field(default_factory=dict)
    """Further facts of trials with a method, by its name."""
    not_reproduced: Mapping[str, str] = field(default_factory=dict)
    """What differs here whatever the settings, in words, and where the program says it."""

    @property
    def settings(self) -> dict[str, Any]:
        """The values of `facts`."""
        return {path: fact.value for path, fact in self.facts.items()}


def protocol_names() -> tuple[str, ...]:
    """Names as `protocol` takes them."""
    return tuple(name.replace("_", "-") for name in plugins.names(PROTOCOLS))


def load_protocol(name: str) -> Protocol:
    """A protocol by name.

    Raises:
        PluginError: There is none of that name.
    """
    found: Protocol = plugins.load(PROTOCOLS, name.replace("-", "_")).PROTOCOL
    return found


def fixed_settings(name: str, methods: Collection[str]) -> dict[str, Any]:
    """Settings that a protocol gives to a trial which names none of them.

    Args:
        methods: The trial's; settings of other methods are left out.
    """
    # A protocol may fix settings of several methods; the trial has those of its own only.
    others = set(plugins.names("tcpa_core.methods")) - set(methods)
    return {
        path: value[0] if isinstance(value, tuple) else value
        for path, value in _settings(name, methods).items()
        if path.partition(".")[0] not in others
    }


def departures(name: str | None, flat: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings that differ from those of the protocol which a trial claims; none if it claims none.

    Args:
        flat: The trial's settings, those that change nothing left out.
    """
    if name is None:
        return ()
    return tuple(
        f"{path}={_shown(_as_fact(flat[path]))} ({name}: {_text(wanted)})"
        for path, wanted in _settings(name, flat["methods"]).items()
        if path in flat and _as_fact(flat[path]) not in _alternatives(wanted)
    )


def _alternatives(wanted: Any) -> tuple[Any, ...]:
    return wanted if isinstance(wanted, tuple) else (wanted,)


def _as_fact(value: Any) -> Any:
    """A setting as facts write it: lists are tuples there."""
    return tuple(map(_as_fact, value)) if isinstance(value, list) else value


def _settings(name: str, methods: Collection[str]) -> dict[str, Any]:
    protocol = load_protocol(name)
    found = protocol.settings
    for method in methods:
        found |= {path: fact.value for path, fact in protocol.of_methods.get(method, {}).items()}
    return found


def _text(value: Any, joint: str = " or ") -> str:
    if isinstance(value, tuple):
        # Alternatives, and among them lists.
        parts = [f"[{_text(v, ', ')}]" if isinstance(v, tuple) else _text(v) for v in value]
        return joint.join(parts)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shown(value: Any) -> str:
    """A trial's value: a tuple is a list."""
    return f"[{_text(value, ', ')}]" if isinstance(value, tuple) else _text(value)
