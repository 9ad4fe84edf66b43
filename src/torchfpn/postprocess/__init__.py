"""Raw predictions -> the values people asked for, one per image."""
