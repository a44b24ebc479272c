"""tcpa slurm."""

from typing import Annotated

import typer

from search.options import Common, JobVerb, Out, Seeds, Uri, Where, with_common


@with_common
def command(
    common: Common,
    where: Where,
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=10_000, help="Nodes of the job.")],
    time: Annotated[str, typer.Option("--time", help="Limit of the job, as 12:00:00.")],
    gpus_per_node: Annotated[
        int, typer.Option("--gpus-per-node", min=0, max=64, help="GPUs that each node has.")
    ] = 0,
    cpus_per_task: Annotated[
        int | None,
        typer.Option("--cpus-per-task", min=1, help="CPUs of each node; default: all that it has."),
    ] = None,
    partition: Annotated[str | None, typer.Option("--partition", help="As of sbatch.")] = None,
    account: Annotated[str | None, typer.Option("--account", help="As of sbatch.")] = None,
    qos: Annotated[str | None, typer.Option("--qos", help="As of sbatch.")] = None,
    verb: JobVerb = "search",
    seeds: Seeds = 5,
    tracking_uri: Uri = None,
    out: Out = None,
) -> None:
    """Print a SLURM batch script that runs a study on many nodes and requeues itself."""
    from search.clusters.slurm import BatchJob
    from search.verbs.cluster_jobs import Run, print_job, slurm_job

    job = BatchJob(
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        time=time,
        cpus_per_task=cpus_per_task,
        partition=partition,
        account=account,
        qos=qos,
    )
    run = Run(verb=verb, common=common, seeds=seeds, tracking_uri=tracking_uri)
    print_job(slurm_job(job, run, where), out)
