"""What a published protocol is, and where a trial that claims one differs from it.

A protocol is one public file of this folder: `tcpa_hta.py` is the protocol "tcpa-hta" and exports
`PROTOCOL`. A space or trial that says `protocol: tcpa-hta` takes the protocol's value for every
setting that it does not name itself; what it names otherwise is a deviation, which plans, records
and tables repeat. What authors tuned for each data set (rates, decay, sizes) is not fixed.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from tcpa_core import plugins

PROTOCOLS = "tcpa_core.protocols"
FINE_GRAINED: Mapping[str, Any] = {
    "data.resize": "short_side",
    "data.resize_to": None,
    "data.random_crop": True,
    "data.flip": True,
    "data.train_on": "train",
}
"""Images of the fine-grained data sets as VPT prepares them, and CVPT after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How the authors of a method trained and selected."""

    settings: Mapping[str, Any]
    """What is fixed, by dotted path. A tuple lists all values that they used; the first is taken
    where a trial names none."""
    of_methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Further settings of trials with a method, by its name."""
    not_reproduced: tuple[str, ...] = ()
    """What differs here whatever the settings."""


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
    others = set(plugins.names("tcpa_core.methods")) - set(methods)
    return {
        path: value[0] if isinstance(value, tuple) else value
        for path, value in _settings(name, methods).items()
        if path.partition(".")[0] not in others
    }


def departures(name: str | None, flat: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings that differ from those of the protocol which a trial claims; none if it claims none.

    Args:
        flat: All settings of the trial.
    """
    if name is None:
        return ()
    return tuple(
        f"{path}={_text(flat[path])} ({name}: {_text(wanted)})"
        for path, wanted in _settings(name, flat["methods"]).items()
        if path in flat and flat[path] not in (wanted if isinstance(wanted, tuple) else (wanted,))
    )


def _settings(name: str, methods: Collection[str]) -> dict[str, Any]:
    protocol = load_protocol(name)
    found = dict(protocol.settings)
    for method in methods:
        found |= protocol.of_methods.get(method, {})
    return found


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " or ".join(map(_text, value))
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
