"""The folder that is shipped: what it holds, where each file came from, and whether it is whole."""
