"""A study among others on a cluster: looks who waits, gives places up and takes them again.

Every two seconds the cluster's head is asked what its nodes have and what waits for them, which
takes it about a millisecond; what studies hold and want stands on a board there. What is decided
stands in `ShareKeeper` and `Shares`.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from search.ray_internals import cluster_view
from search.workers.board import Board
from search.workers.cluster_view import ClusterView
from search.workers.pack_worker import WorkerSpec
from search.workers.share_keeper import ShareKeeper, Step
from search.workers.shares import Claim, Shares
from search.workers.trial_table import TrialTable
from search.workers.waiting import Waiting, waiting_text
from search.workers.worker_pool import WorkerPool
from tcpa_core.record.events import Notice

LOOK_S = 2.0
"""Between two looks."""
LEAVE_S = 2.0
"""How long the board may take to forget a study that ends."""


class Sharing:
    """Follows the places of a study's workers.

    Args:
        spec: How its workers are made.
        pool: Its workers.
        table: Its trials.
        say: Called with what the user should know.
    """

    def __init__(
        self, spec: WorkerSpec, pool: WorkerPool, table: TrialTable, say: Callable[[Notice], None]
    ) -> None:
        self._spec = spec
        self._pool = pool
        self._table = table
        self._say = say
        self._study = spec.mark
        self._since = time.time()
        self._board = Board()
        self._keeper = ShareKeeper(self._study)
        self._waiting = Waiting()
        self._cap: int | None = None
        self._looks: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Look for as long as the study runs."""
        self._looks = asyncio.get_running_loop().create_task(self._follow())
        self._looks.add_done_callback(self._tell_fault)

    async def end(self) -> None:
        """The study ends: others need not count it any more."""
        if self._looks is None:
            return
        self._looks.cancel()
        with suppress(Exception):
            await asyncio.wait_for(asyncio.to_thread(self._board.leave, self._study), LEAVE_S)

    def _tell_fault(self, looks: "asyncio.Task[None]") -> None:
        """Trials go on where they are; but nobody should wonder for what."""
        if not looks.cancelled() and (fault := looks.exception()) is not None:
            why = f"a fault in the code ({type(fault).__name__}: {fault})"
            self._say(Notice(text=f"places are not shared with others any more: {why}"))

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._release()
            claim, placed = self._claim(), self._by_loss()
            leaving = self._pool.workers.leaving
            # In a thread: the head may be silent, and of a large cluster there is much to see.
            seen = await asyncio.to_thread(self._see, claim, placed, leaving)
            if seen is not None:
                self._act(claim, *seen)

    def _see(
        self, claim: Claim, placed: Mapping[int, str], leaving: Sequence[str]
    ) -> tuple[ClusterView, Step] | None:
        """What the cluster is like, and what follows; None: its head does not answer."""
        try:
            view, others = cluster_view(), self._board.tell(claim)
        except Exception:  # whether it is lost, the driver finds out
            return None
        return view, self._keeper.step(Shares.of(view, [claim, *others]), placed, leaving)

    def _claim(self) -> Claim:
        held: dict[str, int] = {}
        for node in (*self._pool.workers.placed.values(), *self._pool.workers.leaving):
            held[node] = held.get(node, 0) + 1
        shape = {"CPU": self._spec.num_cpus, "GPU": self._pool.workers.num_gpus}
        needed = self._table.workers_needed
        return Claim(
            study=self._study,
            name=self._spec.study_dir.name,
            shape={name: amount for name, amount in shape.items() if amount},
            wants=self._pool.workers.num_wanted if needed is None else needed,
            held=held,
            priority=self._spec.priority,
            since=self._since,
        )

    def _release(self) -> None:
        """End workers that nothing is left for."""
        needed = self._table.workers_needed
        if needed is None or not self._spec.is_shared:
            return
        placed = self._by_loss()
        idle = [number for number in placed if not self._table.held_by(number)]
        waiting = self._pool.workers.waiting
        surplus = len(placed) + len(waiting) - needed
        ends = [*reversed(waiting), *idle][: max(0, surplus)]
        for number in ends:
            self._table.forget(number)
            self._pool.drop(number)
        num_idle = sum(number in placed for number in ends)
        if num_idle:
            are = "idle worker is" if num_idle == 1 else "idle workers are"
            text = f"{num_idle} {are} released: fewer trials are left than places"
            self._say(Notice(text=text))

    def _act(self, claim: Claim, view: ClusterView, step: Step) -> None:
        for number in step.give:
            if number in self._pool.workers.placed:  # it may have been lost meanwhile
                self._table.close(number)
                self._pool.retire(number, f"its place goes to {step.to}, which waits", again=True)
        if step.cap != self._cap:
            self._tell_cap(step.cap)
        self._cap = step.cap
        self._pool.hold_back(step.cap, view.nodes)
        own = [one for one in view.requests if one.study == self._study]
        num_waiting = sum(one.count for one in own)
        notice = self._waiting.look(
            num_waiting,
            lambda: waiting_text(
                claim, num_waiting, view, self._pool.refused, leaves=step.cap is not None
            ),
        )
        if notice is not None:
            self._say(notice)

    def _tell_cap(self, cap: int | None) -> None:
        """Say when places may be taken again; that they are given up, each worker's end says."""
        if self._cap is None or (cap is not None and cap < self._cap):
            return
        more = "all its workers" if cap is None else f"{cap} workers"
        self._say(Notice(text=f"others need fewer places now: the study may have {more} again"))

    def _by_loss(self) -> dict[int, str]:
        """Nodes of the workers that have a place, those first that are missed least."""
        placed = self._pool.workers.placed
        numbers = sorted(
            placed,
            key=lambda number: (
                self._table.is_ready(number),
                len(self._table.held_by(number)),
                -number,
            ),
        )
        return {number: placed[number] for number in numbers}
