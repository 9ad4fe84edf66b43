"""Scores of maps, of models and of COCO results."""
