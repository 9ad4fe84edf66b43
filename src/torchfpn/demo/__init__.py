"""The whole job in one command: makes labelled aerial scenes from a seed, trains, evaluates, predicts, reports."""
