"""Windows, coordinate systems and what lies where on the earth."""
