"""What a kernel is: its inputs, stages and results, and how it is launched."""
