"""From labelled files to batches: the description of a dataset, its check, its samples and their augmentation."""
