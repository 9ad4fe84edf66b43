"""`fpn demo`: makes labelled aerial scenes from a seed, trains on them, evaluates, predicts a map, and reports."""
