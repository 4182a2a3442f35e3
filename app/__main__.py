"""Start of the web app (`python app.py`, or `fuselab-app` where installed): build it, serve it."""

import ctypes
import os
from contextlib import suppress


def main() -> None:
    """Set up the process, which has to happen before the libraries are loaded, then serve."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Threads that spin while they wait take the cores from the other visitors.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # One heap a thread keeps what visitors who have left had used (M_ARENA_MAX, glibc alone).
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(-8, 2)

    from .limits import Limits, forget_tokens

    if Limits.here().public:
        forget_tokens()
    from . import ui

    ui.build().launch(**ui.launch_options())


if __name__ == "__main__":
    main()
