"""`python -m fusion_core COMMAND …`."""

import sys

from .cli import main

sys.exit(main())
