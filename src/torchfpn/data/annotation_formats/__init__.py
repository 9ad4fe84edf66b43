"""Annotations of other tools, read as they are found in folders and written anew as COCO."""
