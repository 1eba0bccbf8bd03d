"""Random PyTorch models, fused and held against eager."""
