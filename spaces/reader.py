"""Read YAML text into plain values that know their line.

A small and unambiguous part of YAML: mappings with text keys, lists, text, whole numbers, decimals
(`5e-4` is a number), true/false and null. `on`, `yes`, `010` and dates are text. Aliases, tags, a
key written twice and deep nesting are refused, so that a file means what a reader sees.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tcpa_core.errors import ConfigError, RecordError

MAX_BYTES = 100_000
"""Read in about a second; the longest space shipped has 4,000."""
MAX_DEPTH = 20
"""Nesting a space needs is 5; the rest is room."""

Keys = tuple[str | int, ...]

_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that YAML can only escape: terminals act on them, or no file can hold them."""


@dataclass(frozen=True, slots=True)
class Document:
    """The values of one file and where each of them stands."""

    data: Any
    places: Mapping[Keys, str]
    """"FILE, line N" or "--set PATH", by keys from the root."""
    label: str
    """The file or preset, for messages."""
    folder: Path
    """What relative paths in it are relative to."""

    def place(self, *keys: str | int) -> str:
        """The place of the value, or of the nearest value around it."""
        for length in range(len(keys), 0, -1):
            if keys[:length] in self.places:
                return self.places[keys[:length]]
        return self.label


class _Refused(yaml.YAMLError):
    """YAML that is right, but not taken."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")


class _Bounded(yaml.SafeLoader):
    """SafeLoader that looks at each event before it recurses, multiplies or hides a character."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        line = event.start_mark.line + 1
        # A few lines of aliases can stand for gigabytes.
        if isinstance(event, yaml.AliasEvent):
            raise _Refused(line, f"alias *{event.anchor} is not supported; write the value.")
        if isinstance(event, yaml.ScalarEvent) and (found := _UNSAFE.search(event.value)):
            raise _Refused(line, f"character {found[0]!r} is not allowed, not even escaped.")
        if isinstance(event, yaml.CollectionStartEvent) and self.depth == MAX_DEPTH:
            raise _Refused(line, f"values are nested more than {MAX_DEPTH} levels deep.")
        # Checked before the parent class goes down, which would end in a RecursionError.
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Loader(_Bounded):
    """Without YAML 1.1's surprises; only its scanner, parser and composer are used."""

    # Own resolvers, as those of YAML 1.1 read `no` as false, `010` as 8 and `5e-4` as text.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


_SCALARS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]{1,18}", list("-+0123456789")),
    "float": (r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
}
for _tag, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first
    )


SCALAR_RESOLVERS: Mapping[str, list[tuple[str, re.Pattern[str]]]] = _Loader.yaml_implicit_resolvers
"""What plain scalars are, by their first character, as PyYAML has them."""


def read_file(path: Path, label: str, folder: Path) -> Document:
    """Read one YAML file.

    Raises:
        ConfigError: Unreadable, larger than 100 kB, not UTF-8, or refused by `read_text`.
    """
    try:
        with path.open("rb") as file:
            # One more than allowed, to see that there is more.
            raw = file.read(MAX_BYTES + 1)
    except OSError as err:
        raise ConfigError(f"{label} cannot be read: {err.strerror or err}.") from err
    if len(raw) > MAX_BYTES:
        raise ConfigError(
            f"{label} is larger than {MAX_BYTES} bytes; a space is a short text, so this is "
            "another file."
        )
    try:
        # Editors on Windows begin a file with a byte order mark.
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = raw[: err.start].count(b"\n") + 1
        raise ConfigError(
            f"{label}, line {line}: byte 0x{raw[err.start]:02x} is not UTF-8; save the file as "
            "UTF-8 text."
        ) from err
    return read_text(text, label, folder)


def read_text(text: str, label: str, folder: Path) -> Document:
    """Read YAML text.

    Raises:
        ConfigError: Not YAML, more than one document, an alias, a tag, a key that is not text or
            stands twice in one mapping, or more than 20 levels.
    """
    places: dict[Keys, str] = {}
    try:
        node = _Loader(text).get_single_node()
        data = None if node is None else _plain(node, (), label, places)
    except _Refused as err:
        raise ConfigError(f"{label}, {err}") from err
    except yaml.MarkedYAMLError as err:
        mark = err.problem_mark or err.context_mark
        spot = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{label}{spot}: YAML cannot be read: {err.problem}.") from err
    except yaml.reader.ReaderError as err:
        raise ConfigError(
            f"{label}: YAML cannot be read: character {err.character!r} at position "
            f"{err.position} is not allowed."
        ) from err
    except ValueError as err:  # an escape beyond Unicode, which PyYAML hands to chr()
        raise ConfigError(f"{label}: YAML cannot be read: {err}.") from err
    return Document(data, places, label, folder)


def read_stored(path: Path) -> Any:
    """Read YAML that this package wrote (study.yaml) back to plain JSON values.

    Unlike a space, it may hold all that YAML writes for JSON values; dates become text.

    Raises:
        RecordError: Unreadable, not such YAML, with aliases, or more than 20 levels deep.
    """
    try:
        # Through JSON, so that whatever YAML makes of a value is a plain one.
        loaded = _Bounded(path.read_text(encoding="utf-8")).get_single_data()
        return json.loads(json.dumps(loaded, default=str))
    except (OSError, yaml.YAMLError, ValueError, TypeError, OverflowError) as err:
        why = " ".join(str(err).split())
        raise RecordError(f"{path} is not a valid study description: {why}") from err


def _plain(node: yaml.Node, keys: Keys, label: str, places: dict[Keys, str]) -> Any:
    places[keys] = f"{label}, line {node.start_mark.line + 1}"
    tag = node.tag.removeprefix("tag:yaml.org,2002:")
    if isinstance(node, yaml.MappingNode) and tag == "map":
        return _plain_mapping(node, keys, label, places)
    if isinstance(node, yaml.SequenceNode) and tag == "seq":
        return [_plain(item, (*keys, i), label, places) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        return _plain_scalar(node, tag, places[keys])
    raise ConfigError(f"{places[keys]}: tag {node.tag!r} is not supported; remove it.")


def _plain_mapping(
    node: yaml.MappingNode, keys: Keys, label: str, places: dict[Keys, str]
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key_node, value_node in node.value:
        place = f"{label}, line {key_node.start_mark.line + 1}"
        key = key_node.value
        if not isinstance(key_node, yaml.ScalarNode) or not key:
            raise ConfigError(f"{place}: a key must be text on one line, as in 'optim.lr: 0.001'.")
        # YAML libraries keep the last one silently.
        if key in out:
            raise ConfigError(f"{place}: key {key!r} stands twice (first: {places[*keys, key]}).")
        out[key] = _plain(value_node, (*keys, key), label, places)
        places[*keys, key] = place
    return out


def _plain_scalar(node: yaml.ScalarNode, tag: str, place: str) -> Any:
    text: str = node.value
    try:
        match tag:
            case "str":
                return text
            case "null":
                return None
            case "bool":
                return {"true": True, "false": False}[text.lower()]
            case "int":
                return int(text)
            case "float":
                return float(text)
    except (ValueError, KeyError) as err:
        raise ConfigError(f"{place}: {text!r} is not of type {tag}.") from err
    raise ConfigError(f"{place}: tag {node.tag!r} is not supported; remove it.")
