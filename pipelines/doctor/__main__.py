"""``python -m pipelines.doctor``."""

import sys

from pipelines.doctor.command import main

if __name__ == "__main__":
    sys.exit(main())
