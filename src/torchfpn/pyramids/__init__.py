"""Maps of a backbone -> maps of one width, where every level knows what the coarser ones saw."""
