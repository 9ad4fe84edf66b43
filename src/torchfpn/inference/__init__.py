"""Predictions of images and of rasters of any size."""
