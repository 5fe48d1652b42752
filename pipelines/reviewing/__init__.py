"""What people say of a dataset, and the dataset that follows from it. ``pipelines.review`` is the command."""
