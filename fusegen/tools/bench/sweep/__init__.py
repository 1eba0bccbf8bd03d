"""Random cells: specs, shapes, dtypes and memory formats drawn from a seed, to which nothing can be tuned."""
