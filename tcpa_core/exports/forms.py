"""The forms of export by their names."""

from collections.abc import Mapping

from tcpa_core.errors import ConfigError, nearest
from tcpa_core.exports import own
from tcpa_core.exports.base import Form

FORMS: Mapping[str, Form] = {
    "tcpa": own.FORM,
}


def form_of(name: str) -> Form:
    """A form by its name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in FORMS:
        raise ConfigError(
            f"--format: no export format {name!r}{nearest(name, FORMS)}; known: {', '.join(FORMS)}."
        )
    return FORMS[name]
