"""Linear probe: the head alone is trained on the features of the untouched backbone."""

from tcpa_core.methods import base


class Config(base.MethodSettings):
    """Nothing to set."""


class Method(base.Method[base.Pass]):
    """Adds nothing to the backbone."""

    @property
    def active(self) -> bool:
        """Never: features stay those of the backbone."""
        return False
