"""Numbers and names what a source proposes, so that no trial is planned twice."""

from collections.abc import Mapping

from search.proposals.source import LATER, Later, Outcome, Past, Source
from search.study.folder import trial_name
from tcpa_core.chain import deviations
from tcpa_core.config import TrialConfig
from tcpa_core.record.events import Planned

MAX_REPEATS = 10_000
"""Proposals in a row that were all run before; then the space counts as exhausted."""


class Planner:
    """What a study has planned, and what comes next.

    Args:
        source: What to run; used through this object alone.
        fingerprints: Identities of data and weights.
        limit: Most trials of the study; None: until the source is exhausted.
    """

    def __init__(self, source: Source, fingerprints: Mapping[str, str], limit: int | None) -> None:
        self._source = source
        self._ids = fingerprints["data"], fingerprints["weights"]
        self._limit = limit
        self._outcomes: dict[str, Outcome | None] = {}
        """By digest of what was planned; None: has not ended."""
        self._recorded: dict[str, str] = {}
        """Digests and points that another version recorded under other hashes, by today's."""
        self._number = 0

    def replay(self, past: Past) -> None:
        """Go through the trials of earlier drivers in their order, with their outcomes."""
        for planned, outcome in past:
            self._outcomes[planned.digest] = outcome
            # A version that hashes otherwise must neither run a trial again nor split a point.
            hashes = planned.config.digest(*self._ids), planned.config.point(*self._ids)
            for today, recorded in zip(hashes, (planned.digest, planned.point), strict=True):
                if today != recorded:
                    self._recorded[today] = recorded
        self._number = len(past)
        self._source.replay(past)

    def tell(self, planned: Planned, outcome: Outcome) -> None:
        """Let the source learn from a trial that has ended."""
        self._outcomes[planned.digest] = outcome
        self._source.tell(planned, outcome)

    def new(self) -> Planned | Later | None:
        """The next trial; None when there is none left."""
        if self._limit is not None and self._number >= self._limit:
            return None
        for attempt in range(MAX_REPEATS):
            proposal = self._source.propose(attempt)
            if proposal is None or proposal is LATER:
                return proposal
            digest, point = self._identity(proposal.config)
            if digest in self._outcomes:
                self._source.repeat(digest, proposal, self._outcomes[digest])
                continue
            planned = Planned.of(
                trial_name(self._number),
                proposal.config,
                origin=proposal.origin,
                digest=digest,
                point=point,
                cells=proposal.cells,
                deviation=deviations(proposal.config),
                draw=proposal.draw,
                before=proposal.before,
            )
            # From now on a proposal of the same digest waits for this trial's end.
            self._outcomes[digest] = None
            self._number += 1
            self._source.take(planned, proposal)
            return planned
        return None

    def close(self) -> None:
        """Release what the source holds."""
        self._source.close()

    def _identity(self, config: TrialConfig) -> tuple[str, str]:
        """Digest and point of a trial, as the study's journal has them."""
        digest, point = config.digest(*self._ids), config.point(*self._ids)
        return self._recorded.get(digest, digest), self._recorded.get(point, point)
