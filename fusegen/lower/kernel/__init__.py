"""The kernel: its inputs, stages and results, and its launch."""
