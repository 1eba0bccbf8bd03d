"""The rewrites between a program and its kernels, one a file."""
