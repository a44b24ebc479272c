"""The space of a study on disk: read from its study.yaml, or written as a space file of its own.

Both give the very points of the study, whatever a protocol or an objective has come to fix since.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from spaces.reader import SCALAR_RESOLVERS, read_stored
from spaces.setting_values import default
from tcpa_core import plugins
from tcpa_core.config import METHODS
from tcpa_core.errors import ConfigError, RecordError
from tcpa_core.protocols.base import load_protocol, protocol_names

Json = Mapping[str, Any]
_DESCRIPTION = re.compile(r"^schema: .*^space:", re.MULTILINE | re.DOTALL)


def recorded_in(path: Path) -> Json | None:
    """The space that a study.yaml holds; None: the file is none.

    Raises:
        ConfigError: It is one, but cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None  # whoever reads it as a space says what is wrong with it
    if not _DESCRIPTION.search(text):
        return None
    try:
        document = read_stored(path)
    except RecordError as err:
        raise ConfigError(str(err)) from err
    space = document.get("space") if isinstance(document, dict) else None
    return space if isinstance(space, dict) and "kind" in document else None


def as_it_was(data: Json) -> dict[str, Any]:
    """The space of a study with what its protocol or objective has come to fix since written out.

    Args:
        data: As recorded.
    """
    base, axes = dict(data.get("base") or {}), data.get("axes") or {}
    name, objective = base.get("protocol"), data.get("objective") or {}
    leading = objective[0] if isinstance(objective, list) else objective
    if isinstance(leading, dict) and leading.get("metric") == "val_loss":
        if "train.selection" not in axes:
            base.setdefault("train.selection", default("train.selection"))
    if name in protocol_names():
        protocol, chosen = load_protocol(name), plugins.names(METHODS)
        # What a protocol fixes for some methods only is left to the trials, then as now.
        left = {path for facts in protocol.of_methods.values() for path in facts}
        for path in protocol.facts.keys() - base.keys() - axes.keys() - left:
            if path.partition(".")[0] not in chosen:
                base[path] = default(path)
    return {**data, "base": base}


def lacks_runs(data: Json) -> bool:
    """Whether it is a fraction of a version that did not record its runs, and had other ones."""
    design = data.get("ablation") or {}
    return design.get("design") == "fractional_factorial" and "runs" not in design


def can_be_a_file(data: Json) -> bool:
    """Whether a space file can say all of it; else its study.yaml does.

    It cannot name an older version's runs, nor what is asked of new studies alone.
    """
    base, objective = as_it_was(data)["base"], data.get("objective") or {}
    leading = objective[0] if isinstance(objective, list) else objective
    is_loss = isinstance(leading, dict) and leading.get("metric") == "val_loss"
    return not lacks_runs(data) and not (is_loss and base.get("train.selection") == "best_val")


_OF_YAML = yaml.SafeDumper.yaml_implicit_resolvers


class _Dumper(yaml.SafeDumper):
    """Quotes what a space file would read as something else than text."""

    yaml_implicit_resolvers = {
        first: [
            *SCALAR_RESOLVERS.get(first, []),
            *yaml.SafeDumper.yaml_implicit_resolvers.get(first, []),
        ]
        for first in {*SCALAR_RESOLVERS, *yaml.SafeDumper.yaml_implicit_resolvers}
    }

    def ignore_aliases(self, data: Any) -> bool:
        """A space file has no aliases."""
        return True


def space_text(data: Json, about: str) -> str:
    """A space file with the points of a study.

    Args:
        data: The study's space, as recorded.
        about: Lines for its head.
    """
    head = "".join(f"# {line}\n" for line in about.splitlines())
    body = yaml.dump(
        as_it_was(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )
    return head + body
