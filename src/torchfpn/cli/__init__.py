"""The command `fpn`: one verb a file."""
