"""optuna-dashboard over the studies of a folder, made from their journals."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.storages import InMemoryStorage

from search.proposals.optuna_study import OptunaStudy
from search.study.folder import StudyDir
from search.tracking.pages import LOOPBACK, is_open
from search.verbs.verdict import verdict_text
from tcpa_core.errors import StudyError, TcpaError
from tcpa_core.record import files

LOOK_S = 2.0
"""Time between two looks at the journals."""


def check_dashboard(host: str) -> None:
    """Make sure that the pages can be served, and to nobody else.

    Raises:
        StudyError: The package is not installed, or the host is open to others.
    """
    if is_open(host):
        raise StudyError(
            f"--optuna --host {host}: optuna-dashboard has no passwords, so it is served to this "
            f"machine alone; leave --host out for {LOOPBACK}, and reach it from elsewhere with "
            "'ssh -L'."
        )
    try:
        import optuna_dashboard  # noqa: F401
    except ImportError as err:
        raise StudyError(
            "--optuna needs optuna-dashboard: pip install 'tcpa-search[dashboard]'."
        ) from err


def open_optuna_pages(root: Path, host: str, port: int) -> None:
    """Say where the pages are, and serve them until Ctrl-C.

    Raises:
        StudyError: As `check_dashboard`, or the folder has no study.
    """
    check_dashboard(host)
    pages = OptunaPages(root, lambda line: print(line, flush=True))
    address = f"http://{host}:{port}/dashboard"
    print("\n".join([f"optuna-dashboard: {address}  (Ctrl-C ends it)", *pages.links(address)]))
    threading.Thread(target=pages.follow, name="optuna-pages", daemon=True).start()
    with make_server(host, port, pages.app(), _Server, _Quiet) as server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


class OptunaPages:
    """The studies of a folder in one storage of Optuna.

    Args:
        root: Folder of studies.
        say: Called with a line for each study that is left out.

    Raises:
        StudyError: None is left.
    """

    def __init__(self, root: Path, say: Callable[[str], None]) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._say = say
        self.storage = InMemoryStorage()
        self._studies: list[tuple[StudyDir, OptunaStudy]] = []
        for path in sorted(root.glob(f"*/{files.DESCRIPTION}")):
            self._add(StudyDir(path.parent))
        if not self._studies:
            raise StudyError(f"no study below {root}; run one with this --root first.")

    def _add(self, study: StudyDir) -> None:
        copy = None
        try:
            copy = OptunaStudy(self.storage, study)
            copy.update()
        except TcpaError as err:
            self._say(f"{study.name} is left out: {err}")
            if copy is not None:
                self.storage.delete_study(copy.id)
        else:
            self._studies.append((study, copy))

    def app(self) -> Any:
        """What a WSGI server serves."""
        from optuna_dashboard import wsgi

        return wsgi(self.storage)

    def links(self, address: str) -> Sequence[str]:
        """Direct links to the studies."""
        return [f"{address}/studies/{copy.id}  {study.name}" for study, copy in self._studies]

    def note(self) -> None:
        """Give every study its verdict as a note."""
        from optuna_dashboard import get_note, save_note

        for study, copy in self._studies:
            text = verdict_text(study.path).replace("\n", "\n\n")
            if text != get_note(copy.study):
                save_note(copy.study, text)

    def follow(self) -> None:
        """Take over what running studies add, for ever."""
        self._try(self.note)
        while True:
            time.sleep(LOOK_S)
            if any(self._try(copy.update) for _, copy in self._studies):
                self._try(self.note)

    def _try(self, update: Callable[[], Any]) -> Any:
        try:
            return update()
        except TcpaError as err:
            self._say(f"optuna-dashboard is not kept up to date any more: {err}")
            return None


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a line for each request would bury the links."""
