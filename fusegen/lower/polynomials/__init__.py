"""Functions of a bounded argument as minimax polynomials, each with its measured error."""
