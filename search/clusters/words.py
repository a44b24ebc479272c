"""The command line of a job: what `tcpa slurm` or `tcpa kube` was given, for `tcpa VERB`."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, get_type_hints

from spaces.shipped import PRESETS
from spaces.space import Space

VERBS: Mapping[str, str] = {"search": "search", "ablate": "ablation", "compare": "search"}
"""What a job can run, and the kind of space that it takes."""


def option_words(group: Any, leave_out: Collection[str] = ()) -> Iterator[str]:
    """The options that give a group of values, those that differ from their defaults.

    Args:
        group: A value of `Common`, `Where` or a class like them.
        leave_out: Fields that the caller gives itself.
    """
    hints = get_type_hints(type(group), include_extras=True)
    for field in fields(group):
        value = getattr(group, field.name)
        if field.name in leave_out or value is None or value == _default(field):
            continue
        (option,) = hints[field.name].__metadata__
        # In an annotation the first name stands where a default would.
        name = (option.default, *option.param_decls)[0]
        if value is True:
            yield name
        else:
            for one in value if isinstance(value, (list, tuple)) else (value,):
                yield f"{name}={one}"


def space_word(source: str) -> str:
    """The space as a job that starts in another folder finds it."""
    return source if source in PRESETS.names() else os.path.abspath(os.path.expanduser(source))


def set_words(settings: Sequence[str], space: Space) -> Iterator[str]:
    """`--set` options; paths that are relative to the current folder are made whole."""
    for text in settings:
        path = text.partition("=")[0].strip()
        value = space.base.get(path)
        was_relative = isinstance(value, str) and os.path.isabs(value) and value not in text
        yield f"--set={path}={value}" if was_relative else f"--set={text}"


def _default(field: "Field[Any]") -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
