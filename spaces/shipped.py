"""The spaces and suites that are shipped, each found by its name."""

import os
import re
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from spaces.reader import Document, read_file
from tcpa_core.errors import ConfigError, nearest


@dataclass(frozen=True, slots=True)
class Shipped:
    """YAML files of a folder of this package.

    Args:
        kind: What each of them is, in messages.
        package: The folder.
    """

    kind: str
    package: str

    def names(self) -> tuple[str, ...]:
        """Their names, sorted."""
        found = (item.name for item in files(self.package).iterdir())
        return tuple(sorted(n.removesuffix(".yaml") for n in found if n.endswith(".yaml")))

    def purpose(self, name: str) -> str:
        """What one is for: the first sentence of its comment, on one line."""
        text = (files(self.package) / f"{name}.yaml").read_text(encoding="utf-8")
        comment = [line for line in text.splitlines() if line.startswith("#")]
        words = " ".join(line.removeprefix("#").strip() for line in comment)
        return re.split(r"[.;:] ", words.removeprefix("Purpose: "))[0]

    def read(self, source: str) -> Document:
        """The text of one of them or of a user's file, not looked at yet.

        Args:
            source: A name, or a YAML file.

        Raises:
            ConfigError: It cannot be read.
        """
        names = self.names()
        if source in names:
            with as_file(files(self.package) / f"{source}.yaml") as path:
                return read_file(path, f"{self.kind} {source!r}", Path.cwd())
        path = Path(os.path.expanduser(source))
        if not os.path.isfile(path):
            raise ConfigError(
                f"no file and no {self.kind} {source!r}{nearest(source, names)}. "
                f"{self.kind.capitalize()}s: {', '.join(names)}."
            )
        return read_file(path, source, path.absolute().parent)


PRESETS = Shipped("preset", "spaces.presets")
SUITES = Shipped("suite", "spaces.suites")
