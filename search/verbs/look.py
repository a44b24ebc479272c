"""A look at a study on disk: who runs it, where it stands, if it is confirmed, what comes next.

Nothing heavy is loaded: `tcpa status` and `tcpa list` answer in less than a second.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from shlex import quote

from search.study.folder import StudyDir
from search.study.glance import glance
from search.study.lock import Driver
from search.study.outline import Outline
from search.verbs.standing import View
from spaces.confirmations import confirmation_of
from tcpa_core.errors import TcpaError
from tcpa_core.record.state import StudyState


@dataclass(frozen=True, slots=True)
class Look:
    """A study as it is found."""

    study: StudyDir
    view: View
    driver: Driver | None
    """Who runs it; None: nobody does."""
    kind: str
    """"search" or "ablation"."""

    @classmethod
    def at(cls, study: StudyDir) -> "Look":
        """Read what the files of a study say.

        Raises:
            RecordError: The journal is damaged.
            ConfigError: The space is damaged where it was read.
        """
        outline, driver = study.outline(), study.driver()
        state = StudyState.of(glance(study.journal_path), outline.metric)
        total = _total(study, outline, state)
        view = View(state, outline, total, is_run=driver is not None, now=time.time())
        return cls(study, view, driver, "ablation" if outline.ablation else "search")

    @property
    def phase(self) -> str:
        """ "running", or as of `StudyState.phase`."""
        return "running" if self.driver else self.view.state.phase

    def confirmation(self) -> "Look | None":
        """The study that confirms this one; None: there is none that can be read."""
        if self.kind != "search":
            return None
        folder = confirmation_of(self.study.path, self.study.document())
        with suppress(TcpaError):  # a look at it says what is wrong with it
            return Look.at(StudyDir(folder)) if folder else None
        return None

    def next_commands(self, confirmation: "Look | None") -> Sequence[str]:
        """What a user would type next, the likeliest first."""
        name, root = self.study.name, self.study.path.parent
        more = f" --root {quote(str(root))}"
        more += f" --storage {quote(self.study.storage)}" if self.study.storage else ""
        report = f"tcpa report {name}{more}"
        if self.driver:
            return [f"tcpa report {name} --live{more}", f"tcpa stop {name}{more}"]
        if self.phase != "finished" or self.view.state.without_score():
            return [f"tcpa resume {name}{more}"]
        if confirmation is not None:
            return [*confirmation.next_commands(None)[:1], report]
        can_confirm = self.kind == "search" and not self.view.outline.scheduler.herd
        if can_confirm and len(self.view.results.ranking().points) > 1:
            return [f"tcpa confirm {name}{more}", report]
        return [report]


def _total(study: StudyDir, outline: Outline, state: StudyState) -> int | None:
    """Trials that the study will have; None: as many as time allows, or not known."""
    total = outline.total
    if total is None and outline.ablation:
        # An older version did not write it. To count a design, all its points are built.
        return len(state.trials) if state.is_finished else len(study.space().design())
    return total
