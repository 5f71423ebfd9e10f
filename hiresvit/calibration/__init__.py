"""INT8: pictures, ranges, where Q/DQ goes, and which modules lose too much by it."""
