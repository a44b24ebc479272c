"""Whether data and weights are still those that a study was made with, before it goes on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from search.study.description import now, write_description
from search.study.folder import StudyDir
from tcpa_core.config import TrialConfig
from tcpa_core.data.base import Progress, dataset_fingerprint
from tcpa_core.errors import DataError, StorageError, StudyError, WeightsError

UNREADABLE = "not readable"


@dataclass(frozen=True, slots=True)
class Change:
    """Data or weights that a study goes on with although they are others than before."""

    study: str
    """Whose record differs."""
    recorded: Mapping[str, str]
    """Fingerprints by "data" and "weights", of what differs."""
    found: Mapping[str, str]

    def __str__(self) -> str:
        parts = [
            f"{name} of study {self.study!r} changed: recorded {self.recorded[name]}, now "
            f"{self.found[name]}"
            for name in self.recorded
        ]
        return "; ".join(parts)


def joined(prints: Iterable[str]) -> str:
    """The identity of several data sets or weights, as study.yaml keeps it."""
    return "+".join(dict.fromkeys(prints))


def fingerprints_of(
    configs: Iterable[TrialConfig], *, keep: bool = True, progress: Progress | None = None
) -> dict[str, str]:
    """Identities of the data and the weights that trials use; no picture is decoded.

    Args:
        keep: Remember hashes of pictures in the cache.
        progress: Told of pictures that are read, as by `load_dataset`.

    Raises:
        DataError: The data cannot be read.
        WeightsError: The weights cannot be read.
    """
    # Imported here: it loads timm, and the start of the workers would wait for that.
    from tcpa_core.model.load_backbone import weights_fingerprint

    configs = list(configs)
    data = dict.fromkeys(config.data for config in configs)
    backbones = dict.fromkeys(config.backbone for config in configs)
    return {
        "data": joined(
            dataset_fingerprint(config, keep=keep, progress=progress) for config in data
        ),
        "weights": joined(map(weights_fingerprint, backbones)),
    }


def check_unchanged(
    study: StudyDir,
    *,
    accept: bool = False,
    trials: Sequence[TrialConfig] | None = None,
    reads: bool = True,
    progress: Progress | None = None,
) -> Change | None:
    """Refuse to go on with other data or weights than a study has recorded.

    Every verb that trains, scores or draws from a study calls it first. Of data it reads lists and
    file times, and the pictures whose times are new.

    Args:
        accept: Go on all the same.
        trials: Those that are trained or looked at again; None: all that the study may train. Of a
            split drawn between the ends of a range all recorded ones are compared.
        reads: The data and weights are needed. False: accepted also where they cannot be read, and
            hashes of pictures are not remembered: a plan may be all that is asked for.
        progress: Told of pictures that are read, as by `load_dataset`.

    Returns:
        What differs and was accepted; None: nothing.

    Raises:
        StudyError: They differ and that was not accepted; both fingerprints are named.
        DataError: The data cannot be read.
        WeightsError: The weights cannot be read.
    """
    recorded = study.fingerprints()
    # All that the space varies, as when the study was planned: its record joins the same ones.
    configs: Sequence[TrialConfig] = study.space().trials
    is_part = trials is not None and _all_planned(trials, configs)
    if is_part:
        configs = list(trials or ())
    try:
        found = fingerprints_of(configs, keep=reads, progress=progress)
    except (DataError, WeightsError):
        # --from takes settings alone: whoever accepts changed data need not have it here.
        if reads or not accept:
            raise
        found = dict.fromkeys(recorded, UNREADABLE)
    differing = {
        name: text
        for name, text in found.items()
        if name in recorded and not _agrees(recorded[name], text, is_part=is_part)
    }
    if not differing:
        return None
    change = Change(study.name, {name: recorded[name] for name in differing}, differing)
    if not accept:
        raise StudyError(
            f"{change}. Restore what the study was made with, or go on with "
            "--accept-changed-data, which records the change."
        )
    return change


def accept_change(study: StudyDir, change: Change) -> None:
    """Record that a study goes on with other data or weights.

    Trials keep the identity that the study gives them, so that a design goes on where it was.

    Args:
        change: Of this study, or of the one that it was made from.

    Raises:
        StudyError: Another driver runs the study.
        StorageError: Its folder cannot be written.
    """
    study.lock()
    try:
        document = study.document()
        document.setdefault("accepted_changes", []).append({"at": now(), **asdict(change)})
        write_description(study.path, document)
        study.send()
    except OSError as err:
        raise StorageError.of(study.path, err) from err
    finally:
        study.unlock()


def _all_planned(trials: Iterable[TrialConfig], planned: Iterable[TrialConfig]) -> bool:
    """Whether the plan recorded the data and weights of these trials, of a range both ends."""
    known = {(config.data, config.backbone) for config in planned}
    return all((config.data, config.backbone) in known for config in trials)


def _agrees(recorded: str, found: str, *, is_part: bool) -> bool:
    known, now = set(recorded.split("+")), set(found.split("+"))
    return now <= known if is_part else now == known
