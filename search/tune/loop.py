"""Ray Tune's own loop, without its console, snapshots and signal handlers."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable

from ray import tune
from ray.tune.experiment import Experiment
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import ConcurrencyLimiter, SearchGenerator

from search.tune.internals import Controller
from search.tune.searcher import StudySearcher
from search.tune.trial_handle import PackTrial, Slots

# Read by Tune when its loop starts. Its callbacks, its signal handler and its snapshots (once an
# hour at most, for it cannot be told never) would each do what the driver does.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")
# Before it warns that trials find no place, Tune asks the head, which may hang. `Slots` has places.
for name in ("THRESHOLD_S", "THRESHOLD_S_AUTOSCALER"):
    os.environ.setdefault(f"TUNE_WARN_INSUFFICENT_RESOURCE_{name}", "inf")


def run_trials(
    name: str,
    searcher: StudySearcher,
    scheduler: TrialScheduler,
    slots: Slots,
    *,
    on_tick: Callable[[], int],
    stop: Callable[[], object],
) -> None:
    """Let Tune run trials until the searcher has no more of them.

    Args:
        name: Of the study.
        searcher: What to run.
        scheduler: Which trials end early.
        slots: Where they are trained.
        on_tick: Called before every step of the loop; how many trials Tune may hold now.
        stop: Asked before every step; a true value ends the loop.
    """
    tune.register_trainable(PackTrial.__name__, PackTrial)
    # Tune insists on a folder of its own; nothing of it is kept.
    scratch = tempfile.mkdtemp(prefix="tcpa-tune-")
    try:
        # No end of samples: the searcher says when there are no more.
        experiment = Experiment(
            name, PackTrial.__name__, num_samples=sys.maxsize, storage_path=scratch
        )
        num_at_once = on_tick()
        limiter = ConcurrencyLimiter(searcher, num_at_once)
        algorithm = SearchGenerator(limiter)
        algorithm.add_configurations([experiment])
        controller = Controller(
            search_alg=algorithm,
            scheduler=scheduler,
            storage=experiment.storage,
            resource_manager_factory=lambda: slots,
        )
        controller.update_max_pending_trials(num_at_once)
        try:
            # `controller.run` would print, and would not ask for a reason to stop.
            while not controller.is_finished() and not stop():
                if (allowed := on_tick()) != num_at_once:
                    num_at_once = allowed
                    limiter.set_max_concurrency(num_at_once)
                    controller.update_max_pending_trials(num_at_once)
                controller.step()
        finally:
            controller.cleanup()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
