"""tcpa kube."""

from typing import Annotated

import typer

from search.options import Common, JobVerb, Out, Seeds, Uri, with_common


@with_common
def command(
    common: Common,
    image: Annotated[str, typer.Option("--image", help="Image with tcpa, see the Dockerfile.")],
    workers: Annotated[int, typer.Option("--workers", min=1, help="Pods that train.")],
    gpus_per_worker: Annotated[
        int, typer.Option("--gpus-per-worker", min=0, max=64, help="GPUs of each pod.")
    ] = 1,
    cpus_per_worker: Annotated[
        int, typer.Option("--cpus-per-worker", min=1, help="CPUs of each pod.")
    ] = 8,
    memory: Annotated[str, typer.Option("--memory", help="Of each pod, as 32Gi.")] = "32Gi",
    namespace: Annotated[str, typer.Option("--namespace", help="Of Kubernetes.")] = "default",
    volume_claim: Annotated[
        str | None,
        typer.Option("--volume-claim", help="Volume that all pods mount; studies lie there."),
    ] = None,
    secret: Annotated[
        str | None, typer.Option("--secret", help="Secret that becomes environment variables.")
    ] = None,
    ray_version: Annotated[
        str | None, typer.Option("--ray-version", help="Of the image; default: as here.")
    ] = None,
    retries: Annotated[
        int, typer.Option("--retries", min=0, help="New clusters after one was lost.")
    ] = 2,
    verb: JobVerb = "search",
    seeds: Seeds = 5,
    tracking_uri: Uri = None,
    out: Out = None,
) -> None:
    """Print a KubeRay RayJob that runs a study on Kubernetes and goes on after losses."""
    from importlib.metadata import version

    from search.clusters.kube import RayJob
    from search.verbs.cluster_jobs import Run, kube_job, print_job

    job = RayJob(
        image=image,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        ray_version=ray_version or version("ray"),
        cpus_per_worker=cpus_per_worker,
        memory=memory,
        namespace=namespace,
        volume_claim=volume_claim,
        secret=secret,
        retries=retries,
    )
    run = Run(verb=verb, common=common, seeds=seeds, tracking_uri=tracking_uri)
    print_job(kube_job(job, run), out)
