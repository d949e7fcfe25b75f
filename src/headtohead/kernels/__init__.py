"""Kernels in Triton, which comes with PyTorch on Linux where there is CUDA. They know of tensors alone."""
