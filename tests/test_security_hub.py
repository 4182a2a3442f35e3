"""The hub is asked in nobody's name on a public page, whatever the server's own token is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hostile import ROOT

SECRET = "hf_secretsecretsecretsecretsecretsec"
ASKED = """
import sys
sys.path.insert(0, {root!r})
from app.limits import Limits
from app.state import AppState
from fusion_core import isolated, models, tokens
from fusion_core.errors import FusionError
from huggingface_hub import HfApi, hf_hub_download
from transformers import AutoConfig, AutoTokenizer
state = AppState(Limits.here())
def load(name):
    return isolated.call("models.trial:try_model", name, None, memory=1 << 30, what="it")
calls = (
    state.models.get, state.tokenizers.get, models.weights_bytes, tokens.load, load,
    AutoConfig.from_pretrained, AutoTokenizer.from_pretrained, HfApi().model_info,
    lambda name: hf_hub_download(name, "config.json"),
    lambda name: hf_hub_download(name, "config.json", token=True),
)
for call in calls:
    try:
        call("owner/private")
    except Exception as error:
        pass
"""


class Hub(ThreadingHTTPServer):
    """A hub that has nothing, and notes who asks."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.asked.append(self.headers.get("Authorization"))
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_POST = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.mark.parametrize(
    ("public", "where"), [(True, "environment"), (True, "file"), (False, "old name")]
)
def test_a_public_page_asks_in_nobodys_name(
    public: bool, where: str, hub: Hub, tmp_path: Any
) -> None:
    """A visitor's hub id was asked for with the server's HF_TOKEN; ten ways to ask are tried.

    Away from a public page the token of whoever runs it is sent, as they mean it to be.
    """
    given = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    given |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    (tmp_path / "token").write_text(SECRET if where == "file" else "")
    name = {"environment": "HF_TOKEN", "old name": "HUGGING_FACE_HUB_TOKEN"}.get(where)
    if name:
        given[name] = SECRET
    if public:
        given["SPACE_ID"] = "owner/space"
    script = ASKED.format(root=str(ROOT))
    subprocess.run([sys.executable, "-c", script], env=given, check=True, timeout=300)
    assert hub.asked
    if public:
        assert set(hub.asked) == {None}
    else:
        assert f"Bearer {SECRET}" in hub.asked
