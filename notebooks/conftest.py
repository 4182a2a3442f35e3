"""Notebooks import the library as if it were installed; here it is the one beside them."""

import os
from pathlib import Path

os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
