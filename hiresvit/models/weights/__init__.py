"""Checkpoints: read without running what they bring, and every key accounted for."""
