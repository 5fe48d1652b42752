"""Prefect flows: build a dataset, publish one, and the server that runs them.

Where no Prefect server is named, Prefect starts one of its own for the time of a flow. It inherits this environment, so that it sends
nothing home (and prints nothing about its failure to do so), and may take its time to start on a busy machine. What the environment says
already is left as it is.
"""

import os

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
