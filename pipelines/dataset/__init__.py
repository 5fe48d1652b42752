"""A dataset as it lies on disk: its table, its shards, what others make of it, and its way to the Hub."""
