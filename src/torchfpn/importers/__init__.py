"""Checkpoints of other projects, converted to tasks with the same numbers. One file a project."""
