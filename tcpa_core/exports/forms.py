"""The forms of export by their names."""

from collections.abc import Mapping

from tcpa_core.errors import ConfigError, nearest
from tcpa_core.exports import onnx_model, own, peft_adapter, program, timm_model
from tcpa_core.exports.base import Form

FORMS: Mapping[str, Form] = {
    "tcpa": own.FORM,
    "timm": timm_model.FORM,
    "onnx": onnx_model.FORM,
    "torch.export": program.FORM,
    "peft": peft_adapter.FORM,
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
