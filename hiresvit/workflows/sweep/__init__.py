"""A sweep: one plan over models, sizes, precisions, contracts, runners and devices, down to one file of results."""
