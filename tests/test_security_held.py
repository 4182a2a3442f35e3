"""What strangers tried and did not get, which must go on so: paths, keys, code, requests."""

from __future__ import annotations

import itertools
import json
import secrets
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import tiny
from hostile import served, with_config
from trainings import planned

from app.limits import Limits
from app.training import queue, store
from app.training.store import JobStore
from fusion_core import models
from fusion_core.config import RunConfig
from fusion_core.errors import FusionError

SECRET = "a secret of the server"
SPACE = Limits(local_folders=False)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A Space, and a file beside its folders that nobody may read."""
    root = tmp_path_factory.mktemp("space")
    (root / "secret.txt").write_text(SECRET)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSELAB_RUNS", str(root / "runs"))
        patch.setenv("GRADIO_TEMP_DIR", str(root / "gradio"))
        with served(SPACE) as (address, _):
            (root / "gradio").mkdir(exist_ok=True)
            (root / "gradio" / "link.txt").symlink_to(root / "secret.txt")
            (root / "runs" / ("0" * 32)).mkdir(parents=True)
            (root / "runs" / ("0" * 32) / "job.json").write_text(SECRET)
            yield address, root


def paths(root: Path) -> Iterator[str]:
    """Ways to ask for files outside of what is served."""
    targets = [
        str(root / "secret.txt"), str(root / "runs" / ("0" * 32) / "job.json"), "/etc/passwd",
        "app.py", "app/api.py", str(Path(__file__)), "/proc/self/environ", "/dev/zero",
    ]  # fmt: skip
    inside = str(root / "gradio")
    heads = ("", "./", "//", "/.", f"{inside}/..", f"{inside}/x/../..", "\\", "file://", "~/", "\0")
    tails = ("", "/", "/.", "%00", "?x", "#x", ".txt", "\0", "::$DATA")
    for target, head, tail in itertools.product(targets, heads, tails):
        yield head + target + tail


@pytest.mark.parametrize("route", ["file=", "file/", "static/", "assets/", "custom_component/"])
def test_no_route_of_files_leads_outside(space: tuple[str, Path], route: str) -> None:
    address, root = space
    with httpx.Client(base_url=address, timeout=30) as client:
        for n, path in enumerate(paths(root)):
            if route != "file=" and n % 9:
                continue
            for written in {quote(path), quote(path, safe=""), quote(quote(path, safe=""))}:
                found = client.get(f"/gradio_api/{route}{written}")
                assert found.status_code != 200 or SECRET not in found.text, path
                assert "root:x:" not in found.text and "def connect" not in found.text, path


def test_no_key_is_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of guesses of keys, runs and names, near ones among them."""
    monkeypatch.setattr(queue.JobQueue, "wake", lambda self: None)
    jobs, key = JobStore(SPACE, tmp_path), store.new_key()
    job = jobs.create(key, planned(), "cpu")
    hashed = job.folder.parent.name
    guesses = [secrets.token_urlsafe(24) for _ in range(3000)]
    guesses += [key[:-1], key + "a", key.swapcase(), key[::-1], hashed, f"../{hashed}", f"{key}\n"]
    guesses += [key[:n] + "*" + key[n + 1 :] for n in range(32)]
    guesses += ["*", "?" * 32, "", "\0", "." * 32, "/" * 32]
    for guess in guesses:
        if guess == key:
            continue
        assert jobs.list(guess) == []
        for action in (jobs.get, jobs.stop, jobs.resume, jobs.delete):
            with pytest.raises(FusionError):
                action(guess, job.id)
        with pytest.raises(FusionError):
            jobs.resolve(f"run:{guess}/{job.id}/fused")
    ids = ["*", "..", f"../{hashed}/{job.id}", job.id[:-1], job.id.upper() + "x", f".{job.id}.gone"]
    for id_ in ids:
        with pytest.raises(FusionError):
            jobs.get(key, id_)
    assert jobs.get(key, job.id).id == job.id


class Canary:
    """A server that notes whether anybody asks it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(SECRET.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/x.txt"


def test_the_server_asks_nobody_in_a_strangers_name(space: tuple[str, Path]) -> None:
    address, _ = space
    canary = Canary()
    where = canary.url.removeprefix("http://")
    tried = [
        canary.url, canary.url.replace("http", "HTTP"), f"//{where}", f"http:/{where}",
        f"http://user@{where}", canary.url.replace("127.0.0.1", "0x7f000001"),
        canary.url.replace("127.0.0.1", "2130706433"), canary.url.replace("127.0.0.1", "127.1"),
        canary.url.replace("127.0.0.1", "[::ffff:127.0.0.1]"),
    ]  # fmt: skip
    with httpx.Client(base_url=f"{address}/gradio_api", timeout=30) as client:
        config = httpx.get(f"{address}/config", timeout=30).json()
        for url in tried:
            for route in ("file=", "proxy=", "stream/", "file/"):
                assert SECRET not in client.get(f"/{route}{quote(url, safe=':/@[]')}").text
            file = {"path": url, "url": url, "meta": {"_type": "gradio.FileData"}}
            for event in config["dependencies"][:40]:
                body = {
                    "data": [file] * len(event["inputs"]), "fn_index": event["id"],
                    "session_hash": "canary",
                }  # fmt: skip
                client.post("/run/predict", json=body)
            client.post("/call/align", json={"data": [url, [url], "x", "bytes"]})
    assert canary.asked == []
    canary.server.shutdown()


# Code ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba"])
@pytest.mark.parametrize("where", ["config.json", "tokenizer_config.json", "both"])
def test_no_code_of_a_model_is_run(where: str, kind: str, tmp_path: Path) -> None:
    """`auto_map` names a module in the folder; it stays a file."""
    name = tiny.saved(tmp_path / "m", kind)
    code = f"open({str(tmp_path / 'run')!r}, 'w')\n"
    (Path(name) / "code.py").write_text(code)
    auto = {
        "AutoConfig": "code.C",
        "AutoModelForCausalLM": "code.M",
        "AutoTokenizer": ["code.T", None],
    }
    for file in ("config.json", "tokenizer_config.json"):
        if where in (file, "both"):
            content = json.loads((Path(name) / file).read_text())
            (Path(name) / file).write_text(json.dumps(content | {"auto_map": auto}))
    try:
        models.load(name)
        models.load_tokenizer(name)
        models.load(with_config(name, model_type="mine"))
    except FusionError:
        pass
    assert not (tmp_path / "run").exists()


TEMPLATES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('touch RUN').read() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].system('touch RUN') }}",
    "{{ ('%s' | attr('__class__')) }}{{ namespace.__init__.__globals__ }}",
    "{% set x = messages.__class__.__base__.__subclasses__ %}{{ x() }}",
    "{{ ''|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('touch RUN') }}",
    "{{ messages.append({'role': 'user', 'content': 'x'}) }}",
)


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_chat_template_gets_out(template: str, tmp_path: Path) -> None:
    from fusion_core import pipeline

    tokenizer = tiny.byte_bpe()
    tokenizer.chat_template = template.replace("RUN", str(tmp_path / "run"))
    tokenizer.save_pretrained(tmp_path / "m")
    loaded = models.load_tokenizer(str(tmp_path / "m"))
    with pytest.raises(FusionError):
        pipeline.align_chat(loaded, [loaded], [{"role": "user", "content": "hello"}])
    assert not (tmp_path / "run").exists()


TAGS = (
    "!!python/object/apply:os.system ['touch RUN']", "!!python/name:os.system ''",
    "!!python/object/new:os.system ['touch RUN']", "!!python/module:os ''",
    "target: !!python/tuple [a]", "!!binary aGk=", "target: !mine x",
)  # fmt: skip


@pytest.mark.parametrize("tag", TAGS)
def test_no_tag_of_yaml_makes_anything(tag: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(tag.replace("RUN", str(tmp_path / "run")))
    with pytest.raises(FusionError):
        RunConfig.read(file)
    assert not (tmp_path / "run").exists()
