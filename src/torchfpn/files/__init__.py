"""Files in and out: whole or not at all, from allowed formats only."""
