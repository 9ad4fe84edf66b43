"""Labels in the forms that they come in."""
