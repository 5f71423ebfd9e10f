"""Calibration for INT8: observers, tables and the placement of Q/DQ pairs (not built yet)."""
