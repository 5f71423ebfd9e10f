"""Labelled pictures, what their labels mean, and the way from a picture to a network's input."""
