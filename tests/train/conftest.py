from train.fixtures import small  # noqa: F401 - a fixture
