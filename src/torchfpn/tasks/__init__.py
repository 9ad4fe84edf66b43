"""Models by name, the tasks that train and run them, and the file that holds them."""
