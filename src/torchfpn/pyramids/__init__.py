"""Pyramids: maps of a backbone -> maps of one width, in which every level has context from the coarser ones."""
