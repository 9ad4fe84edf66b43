"""The training configuration: dataclasses, YAML and flags. No torch is imported, so that errors appear at once."""
