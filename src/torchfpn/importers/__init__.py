"""Checkpoints of other projects -> our models with the same numbers. One file a family; `convert` finds which it is."""
