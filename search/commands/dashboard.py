"""tcpa dashboard."""

from typing import Annotated

import typer

from search.options import DEFAULT_ROOT, Root


def command(
    root: Root = DEFAULT_ROOT,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Port on this machine; 5000, with --optuna 8080, if left out."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; one that others reach demands a password.")
    ] = "127.0.0.1",
    optuna: Annotated[
        bool,
        typer.Option("--optuna", help="Open optuna-dashboard instead, made from the journals."),
    ] = False,
) -> None:
    """Open the MLflow pages of a studies folder on http://127.0.0.1:PORT until Ctrl-C."""
    if optuna:
        from search.verbs.optuna_pages import open_optuna_pages

        open_optuna_pages(root, host, port or 8080)
        return
    from search.study.address import existing_database

    database = existing_database(root)  # MLflow takes seconds to load: refused before that
    from search.verbs.dashboard import open_pages

    open_pages(database, host, port or 5000)
