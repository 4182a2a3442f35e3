"""Entry of the web app, here (`python app.py`) and on a Space: build the page and serve it."""

import ctypes
import os
from contextlib import suppress

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Threads that spin while they wait take the cores from the other visitors.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# One heap a thread keeps what visitors who have left had used (M_ARENA_MAX, glibc alone).
with suppress(OSError, AttributeError):
    ctypes.CDLL(None).mallopt(-8, 2)

from app import ui

if __name__ == "__main__":
    ui.build().launch(**ui.launch_options())
