"""Polygons of other people: reading their files, mending them, bringing them onto the grid of an image."""
