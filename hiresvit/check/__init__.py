"""Whether a graph is fit for a target: rules that need nothing installed, and the verdict of a real build."""
