"""CUDA kernels on a machine without a GPU: the same source, compiled by g++ and run by fibers."""
