"""Says how many GPUs a Ray of our own counts and which its workers get: CUDA_VISIBLE_DEVICES."""

import sys
from pathlib import Path

import ray

from search.driver.ray_session import connect
from search.workers.gpu_proofs import prove_gpus

if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    with connect(None, 2):
        found, _, _ = prove_gpus(2, "tests.search.stub:make_worker")
        print(ray.cluster_resources().get("GPU"), sorted(gpu.id for gpu in found))
