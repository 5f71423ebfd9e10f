"""This machine: what it is, the plans that fit it, TensorRT's and CUDA's calls."""
