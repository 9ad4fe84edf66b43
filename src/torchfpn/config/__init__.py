"""How a training is described: dataclasses, YAML, flags. No torch in here, so that errors come at once."""
