"""``python -m flows.doctor``, as ``sightline doctor`` was once called."""

import sys

from pipelines.doctor.command import main

if __name__ == "__main__":
    sys.exit(main())
