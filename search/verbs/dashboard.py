"""MLflow's pages of a studies folder."""

from pathlib import Path

from mlflow import MlflowClient

from search.study.address import sqlite_uri
from search.tracking.mlflow_internals import make_tables, relocate
from search.tracking.pages import is_open, open_host_notice, serve, server_command
from search.tracking.view import start_page, view_address


def open_pages(database: Path, host: str, port: int) -> None:
    """Say where the pages are, and serve them until Ctrl-C.

    Raises:
        StudyError: As `serve`.
    """
    server_command(database, host, port)  # refuses before anything is said
    address = f"http://{host}:{port}"
    lines = [f"MLflow: {start_page(address)}  (Ctrl-C ends it)", *run_pages(database, address)]
    print("\n".join(lines + [open_host_notice(host, port)] * is_open(host)), flush=True)
    serve(database, host, port)


def run_pages(database: Path, server: str) -> list[str]:
    """Direct links to the runs of each study, since MLflow opens on an overview."""
    make_tables(database)
    relocate(database)
    found = MlflowClient(tracking_uri=sqlite_uri(database.resolve())).search_experiments()
    return [
        f"{view_address(server, one.experiment_id, one.tags)}  {one.name}"
        for one in sorted(found, key=lambda one: int(one.experiment_id))
        if one.experiment_id != "0"
    ]
