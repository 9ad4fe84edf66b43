"""Polygons: from and to pixels, repaired, regularised."""
