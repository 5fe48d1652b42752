"""Building: from a source's records to labelled shards. ``pipelines.build`` runs it."""
