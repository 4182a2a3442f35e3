"""A stand-in for an OpenAI-compatible server: by ids, as vLLM answers, by strings, or a place late.

It reads with `transformers` alone. The forms were taken from answers of vLLM and llama-cpp-python.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

KEY = "secret-key"


class StandIn:
    """A model and how it is served.

    Attributes:
        folder: of the model.
        name: what it is called.
        by_ids: whether ids are taken and given, as vLLM does, or strings alone.
        key: what a request must carry; None for nothing.
        most: largest number of tokens that is given for a place.
        silent: give no log-probabilities.
        late: give each token those of the place behind it, as llama-cpp-python does.
        failing: answer so many requests with status 503 first.
        seen: completions that were answered.
    """

    def __init__(
        self,
        folder: Path,
        name: str = "tiny",
        *,
        by_ids: bool = True,
        key: str | None = None,
        most: int = 20,
        silent: bool = False,
        late: bool = False,
        failing: int = 0,
        length: int = 512,
    ) -> None:
        self.name, self.by_ids, self.key, self.most = name, by_ids, key, most
        self.silent, self.failing, self.length, self.seen = silent, failing, length, 0
        self.late = late
        self.dies_after: int | None = None
        self._network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)

    @contextmanager
    def running(self, port: int = 0) -> Iterator[str]:
        """Serve; the address of the interface is given."""
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                size = int(self.headers.get("Content-Length", 0))
                self._answer(json.loads(self.rfile.read(size)))

            def _answer(self, body: Any) -> None:
                key = self.headers.get("Authorization")
                status, values = stand_in.answer(self.path, body, key)
                if status is None:  # it dies
                    self.connection.close()
                    return
                content = json.dumps(values).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            server.server_close()

    def answer(self, path: str, body: Any, key: str | None) -> tuple[int | None, Any]:
        """Answer one request: a status and what is said."""
        if self.key is not None and key != f"Bearer {self.key}":
            return 401, {"error": "Unauthorized"}
        if path == "/v1/models":
            limit = {"max_model_len": self.length} if self.by_ids else {}
            return 200, {"object": "list", "data": [{"id": self.name, **limit}]}
        if self.failing:
            self.failing -= 1
            return 503, {"error": {"message": "busy"}}
        if self.dies_after is not None and self.seen >= self.dies_after:
            return None, None
        self.seen += 1
        return self._completed(body)

    def _completed(self, body: Any) -> tuple[int, Any]:
        if body["logprobs"] > self.most:
            said = f"Requested prompt logprobs of {body['logprobs']}, which is greater than max"
            return 400, {"error": {"message": said}}
        prompts = body["prompt"]
        if isinstance(prompts, str) or isinstance(prompts[0], int):
            prompts = [prompts]
        if not self.by_ids and not all(isinstance(p, str) for p in prompts):
            return 422, {
                "error": {"message": "[{'type': 'string_type', 'loc': ('body', 'prompt')}]"}
            }
        choices = [
            {"index": n, "text": "", "logprobs": None if self.silent else self._scored(p, body)}
            for n, p in enumerate(prompts)
        ]
        return 200, {"object": "text_completion", "choices": choices[::-1]}

    def _scored(self, prompt: list[int] | str, body: Any) -> dict[str, Any]:
        ids = prompt
        if isinstance(prompt, str):
            ids = self._tokenizer(prompt, add_special_tokens=False).input_ids
        with torch.no_grad():
            logits = self._network(input_ids=torch.tensor([ids])).logits[0]
        rows = logits[:, : len(self._tokenizer)].log_softmax(-1)
        read = [*ids, int(rows[-1].argmax())]  # what was read, and one that is written
        top: list[dict[str, float] | None] = [None]
        given: list[float | None] = [None]
        for row, follows in zip(rows, read[1:], strict=True):
            best = row.topk(body["logprobs"])
            pairs = [(follows, row[follows])] if self.by_ids else []  # vLLM gives this one besides
            pairs += list(zip(best.indices.tolist(), best.values, strict=True))
            top.append({self._written(i): float(p) for i, p in pairs})
            given.append(float(row[follows]))
        if self.late:  # what is written is left out, for want of a row behind it
            read, given, top = read[:-1], [None, *given[2:]], [None, *top[2:]]
        return {
            "tokens": [self._written(i) for i in read],
            "token_logprobs": given,
            "top_logprobs": top,
            "text_offset": [],
        }

    def _written(self, token: int) -> str:
        if self.by_ids:
            return f"token_id:{token}"
        written = self._tokenizer.decode([token], skip_special_tokens=True)
        return written.replace("\ufffd", "")  # bytes that are no character are left out
