"""Is it fast? Times the same chains by fusegen, eager torch and torch.compile, and a plain copy."""
