"""The networks: one file or two a family, heads, the registry, and what makes, folds and counts them."""
