"""Heads: maps -> raw predictions. A head knows levels and classes, not targets or files."""
