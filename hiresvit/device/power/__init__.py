"""What measures power on this machine: `find.py` has a row per source, a file per source reads it.

A meter is read in the background by `meter.sampling`; `hiresvit.evaluation.energy` makes joules of what it read.
"""
