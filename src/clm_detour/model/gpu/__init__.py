"""Triton kernels for GPUs, where Inductor does not fuse by itself."""
