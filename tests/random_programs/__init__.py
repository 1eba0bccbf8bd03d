"""Random programs: specs made from a seed, held against torch's own functions, and shrunk where they fail."""
