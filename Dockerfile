# An image that runs 'tcpa', its workers and the pods of 'tcpa kube'.
#
#   docker build -t me/tcpa:cuda .                          with the CUDA builds of PyTorch
#   docker build -t me/tcpa:cpu --build-arg DEVICE=cpu .    with the smaller ones for processors
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ARG DEVICE=cuda
# The index of PyTorch's builds for processors; set another one behind a mirror.
ARG CPU_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/tcpa
ENV PATH=/opt/tcpa/bin:$PATH
# torch and torchvision have to come from one index; what follows keeps them.
RUN case "$DEVICE" in \
      cuda) pip install torch torchvision ;; \
      cpu) pip install torch torchvision --index-url "$CPU_INDEX" ;; \
      *) echo "DEVICE must be cuda or cpu, got '$DEVICE'" >&2; exit 2 ;; \
    esac
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY reports reports
COPY search search
COPY spaces spaces
COPY tcpa_core tcpa_core
# ray[default] has the job server that Kubernetes talks to; psycopg is MLflow's way to PostgreSQL.
RUN pip install '.[cmaes]' 'ray[default]' 'psycopg[binary]>=3.2.2'

FROM python:${PYTHON}-slim-bookworm
# procps and wget are what KubeRay and batch scripts look at processes and ports with.
RUN apt-get update \
    && apt-get install -y --no-install-recommends procps tini wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --user-group --create-home tcpa \
    && install -d -o tcpa -g tcpa /work /mnt/tcpa /var/cache/tcpa \
    && echo 'PATH=/opt/tcpa/bin:$PATH' > /etc/profile.d/tcpa.sh
COPY --from=build /opt/tcpa /opt/tcpa
ENV PATH=/opt/tcpa/bin:$PATH \
    TCPA_CACHE=/var/cache/tcpa \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["tini", "--"]
CMD ["tcpa", "--help"]
