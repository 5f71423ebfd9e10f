"""From a graph to a plan, in a child process, and what the builder made of it."""
