"""Is it fast? The same chains by fusegen, by eager torch and by torch.compile, beside a plain copy."""
