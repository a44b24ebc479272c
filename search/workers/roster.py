"""The pack workers of a study by their numbers, and where they stand."""

from search.workers.worker_handle import WorkerHandle


class Roster(dict[int, WorkerHandle]):
    """Workers from their start to their end.

    Args:
        num_gpus: Part of a GPU that each takes of those that the study wants now; others end soon.
    """

    def __init__(self, num_gpus: float) -> None:
        super().__init__()
        self.num_gpus = num_gpus

    @property
    def staying(self) -> dict[int, WorkerHandle]:
        """Those that are wanted and not about to end."""
        return {
            number: worker
            for number, worker in self.items()
            if worker.num_gpus == self.num_gpus and not worker.is_retired
        }

    @property
    def placed(self) -> dict[int, str]:
        """Of those, Ray's id of the node of every one that has a place."""
        workers = self.staying.items()
        return {number: worker.place.node for number, worker in workers if worker.place}

    @property
    def waiting(self) -> list[int]:
        """Of those, the ones that have no place yet; last those that wait for nodes to join."""
        waiting = [number for number, worker in self.staying.items() if not worker.place]
        return sorted(waiting, key=lambda number: self[number].is_held_back)

    @property
    def leaving(self) -> list[str]:
        """Nodes of the workers that are about to end, one for each."""
        places = [worker.place for worker in self.values() if worker.is_retired]
        return [place.node for place in places if place]

    @property
    def num_wanted(self) -> int:
        """Workers that the study would have if it were alone."""
        again = [worker for worker in self.values() if worker.is_retired and worker.is_replaced]
        return len(self.staying) + len(again)

    @property
    def num_here(self) -> int:
        """Workers that have a place or may be given one of today's nodes."""
        return sum(bool(one.place) or not one.is_held_back for one in self.staying.values())
