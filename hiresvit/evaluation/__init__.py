"""Measure: parity, latency and activation ranges; nothing here needs torch."""
