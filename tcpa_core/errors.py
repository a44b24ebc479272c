"""Every error a user can meet. Messages say place, condition, value, what is possible.

TcpaError
├── ConfigError (ValueError)            a setting, a space or a command-line value is wrong
│   └── PluginError (LookupError)       no method, data set, protocol or plot of that name
├── DataError (RuntimeError)            an image, list, split or cache entry is broken or missing
├── WeightsError (RuntimeError)         backbone weights are missing or do not fit
├── ShapeError (ValueError)             a tensor does not have the promised shape
├── OutOfMemoryError (MemoryError)      a trial does not fit, even alone
├── MethodError (RuntimeError)          code of a method raised what it must not
├── DeviceError (RuntimeError)          torch cannot train on a device
├── NodeError (RuntimeError)            a machine has not what the study was planned with
├── CheckpointError (RuntimeError)      a saved state is torn, foreign or of another version
│   └── DamagedCheckpointError          it cannot be read back at all
├── RecordError (ValueError)            a journal line or stored record is damaged
└── StudyError (RuntimeError)           a study folder is taken, locked, missing or unwritable
    ├── TakenError                      there is a study of that name
    ├── RunningError                    another driver runs it
    └── StoppedError                    a study that ran had to stop; it can be resumed
        ├── StorageError                a disk is full, read-only or gone
        └── FaultError                  the code or the installation is at fault
"""

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar, Self


class TcpaError(Exception):
    """Base of all errors that a user can cause or has to act on."""


class ConfigError(TcpaError, ValueError):
    """A setting, a space or a command-line value is wrong."""


class PluginError(ConfigError, LookupError):
    """No method, data set, protocol or plot has that name."""


class DataError(TcpaError, RuntimeError):
    """An image, list, split or cache entry is broken or missing."""


class WeightsError(TcpaError, RuntimeError):
    """Backbone weights are missing or do not fit the model."""


class ShapeError(TcpaError, ValueError):
    """A tensor does not have the promised shape."""


class OutOfMemoryError(TcpaError, MemoryError):
    """A trial or a step of it does not fit into memory, even alone."""


class MethodError(TcpaError, RuntimeError):
    """Code of a method raised what it must not, after its settings had been accepted."""


class DeviceError(TcpaError, RuntimeError):
    """torch cannot train on a device: it is of another kind, full, taken or sick."""


class NodeError(TcpaError, RuntimeError):
    """A machine lacks files that the study was planned with, or has others: no trial's fault."""


class CheckpointError(TcpaError, RuntimeError):
    """A saved state is torn, foreign or of another schema version."""


class DamagedCheckpointError(CheckpointError):
    """A saved state cannot be read back: torn or altered, whatever it held."""


class RecordError(TcpaError, ValueError):
    """A journal line or a stored record is damaged or of another schema version."""


class StudyError(TcpaError, RuntimeError):
    """A study folder is taken, locked, missing or unwritable."""


class TakenError(StudyError):
    """There is a study of that name."""


class RunningError(StudyError):
    """Another driver runs the study: the same command may be given again when that has ended."""


class StoppedError(StudyError):
    """A study that ran had to stop; what it recorded is kept and it can be resumed."""


class FaultError(StoppedError):
    """The code or the installation ended a study: resumed as it is, it would stop again."""


class StorageError(StoppedError):
    """A disk is full, read-only or gone: no trial's fault, and nothing recorded is damaged."""

    ERRNOS: ClassVar = frozenset(
        {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE}
    )
    """What the system says then."""

    @classmethod
    def of(cls, path: Path, err: OSError) -> Self:
        """The error for a path that could not be written."""
        return cls(
            f"{path} cannot be written ({err.strerror or err}); what is recorded so far is kept. "
            "Make room or make it writable, then 'tcpa resume'."
        )


def not_written(place: str, err: OSError) -> ConfigError | StorageError:
    """The error for a file or folder that the user named and that cannot be written."""
    kind = StorageError if err.errno in StorageError.ERRNOS else ConfigError
    return kind(
        f"{place} cannot be written ({err.strerror or err}); make room or make it writable, or "
        "choose another place."
    )


def nearest(name: str, options: Iterable[str]) -> str:
    """Say which known name is closest, as a clause to append to a message ("" if none is close)."""
    match = get_close_matches(str(name), list(options), n=1, cutoff=0.6)
    return f"; closest name: {match[0]!r}" if match else ""
