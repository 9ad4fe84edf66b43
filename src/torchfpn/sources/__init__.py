"""Rasters and labels as they are read, window by window."""
