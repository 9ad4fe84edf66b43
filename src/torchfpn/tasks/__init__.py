"""Where the pieces meet: models by name, what they learn, and the file that holds them."""
