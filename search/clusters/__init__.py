"""Jobs for clusters that are managed by SLURM or Kubernetes: texts to print, nothing is run."""
