"""A GPU that is not there: training on CUDA tensors without data, watched operation by operation.

What a CPU cannot show about a GPU is shown here without one: a tensor of the CPU that meets one of
the GPU, a wrong number format and a missing kernel raise as there; every time the host would wait
for the device is counted, with the line that asked for it; a roofline gives a modelled time.
Counts and ratios can be trusted, absolute times are modelled.

Tensors of "cuda:0" are PyTorch's fake tensors (shapes and types without data); those of the CPU are
real, so checkpoints are written and read, and what comes from the device is a pattern in (0, 1).
`pretend` changes torch for good: use it in a process of its own (`python -m benchmarks.fake_cuda`).
"""
