"""Models as graphs for other engines."""
