"""What a node must have so that a trial gives the same numbers there as anywhere else."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from search.workers.shell import PackWorkerShell
from tcpa_core.command import DISTRIBUTION
from tcpa_core.config import TrialConfig
from tcpa_core.settings import BackboneConfig, DataConfig

DISTRIBUTIONS = (DISTRIBUTION, "torch", "torchvision", "timm", "numpy", "ray")
"""What changes numbers, or what travels between processes."""
PACKAGES = ("tcpa_core", "spaces", "search")
"""Ours that workers use."""
SHOWN = 12
"""Digits of a fingerprint in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What the driver has planned with, and every node has to show before it gets a trial."""

    facts: Mapping[str, str] = field(default_factory=dict)
    """As of `PackWorkerShell.node_facts`; {}: nothing is compared."""
    data: Sequence[DataConfig] = ()
    backbones: Sequence[BackboneConfig] = ()
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """Of both, as the study has recorded them; {}: the node is where they were read."""

    def package_fault(self, facts: Mapping[str, str]) -> str:
        """What is wrong with a node's installation, as a clause with what to do; "": nothing.

        Args:
            facts: The node's.
        """
        if not self.facts:
            return ""
        ours, theirs = self.facts.get(DISTRIBUTION, ""), facts.get(DISTRIBUTION, "")
        if "sources" not in facts:
            return f"it has no {DISTRIBUTION}; install version {ours or 'of the driver'} there"
        for name in (*DISTRIBUTIONS, "python"):
            wanted, found = _release(name, self.facts.get(name)), _release(name, facts.get(name))
            if wanted != found and name != DISTRIBUTION:
                return (
                    f"it has {f'{name} {found}' if found else f'no {name}'}, the driver has "
                    f"{wanted or 'none'}; install what the driver has there"
                )
        # The files are what counts: an editable install keeps the version of the day it was made.
        if self.facts["sources"] == facts["sources"]:
            return ""
        if ours != theirs:
            return (
                f"it has {DISTRIBUTION} {theirs or 'without a version'}, the driver has "
                f"{ours or 'none'}; install what the driver has there"
            )
        return (
            f"its source files of {DISTRIBUTION} {ours} are not the driver's; bring both to the "
            "same state"
        )

    def files_fault(self, found: Mapping[str, Sequence[str]]) -> str:
        """What is wrong with a node's data and weights, as a clause with what to do; "": nothing.

        Args:
            found: Fingerprints that the node has, by the names in `fingerprints`.
        """
        where = {
            "data": [str(config.root or config.name) for config in self.data],
            "weights": [str(config.weights or config.name) for config in self.backbones],
        }
        for name, prints in found.items():
            recorded = self.fingerprints[name].split("+")
            for one, place in zip(prints, where[name], strict=True):
                if one not in recorded:
                    return (
                        f"its {name} of {place} are not those that the study was planned with "
                        f"(fingerprint {_short(one)}, planned with "
                        f"{', '.join(map(_short, recorded))}); copy the driver's there"
                    )
        return ""


def driver_facts() -> dict[str, str]:
    """What is installed where this process is."""
    return PackWorkerShell.node_facts(DISTRIBUTIONS, PACKAGES)


def needs_of(trials: Iterable[TrialConfig], fingerprints: Mapping[str, str]) -> Needs:
    """What nodes need for some trials.

    Args:
        trials: All that the study may train, at the ends of its axes.
        fingerprints: As of `Needs`.
    """
    trials = list(trials)
    return Needs(
        facts=driver_facts(),
        data=tuple(dict.fromkeys(config.data for config in trials)),
        backbones=tuple(dict.fromkeys(config.backbone for config in trials)),
        fingerprints=fingerprints,
    )


def _release(name: str, version: str | None) -> str | None:
    """What has to be equal of a version.

    A head without a GPU often has torch's build for processors ("2.11.0+cpu"), its nodes another.
    Ray itself compares Python where a node joins.
    """
    if version is None:
        return None
    return ".".join(version.split(".")[:2]) if name == "python" else version.partition("+")[0]


def _short(fingerprint: str) -> str:
    kind, colon, digits = fingerprint.rpartition(":")
    return f"{kind}{colon}{digits[:SHOWN]}"
