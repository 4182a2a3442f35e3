"""Entry of the web app, here (`python app.py`) and on a Space: build the page and serve it."""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from app import ui

if __name__ == "__main__":
    ui.build().launch(**ui.launch_options())
