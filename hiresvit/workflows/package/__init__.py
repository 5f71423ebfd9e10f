"""A bundle as what another program takes: a file for each format, its texts in ``templates/``."""
