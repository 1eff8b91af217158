"""The server, as far as it is asked: completions from token ids, as a stream that puts tokens together and says at its end how many they were."""

import argparse
import http.server
import json
import os
import pathlib
import subprocess
import sys
import time


def does(what):
    return os.environ.get("LLMCB_STAND_IN") == what


def serve(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--model-lib", type=pathlib.Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--mode", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--api-key", required=True)
    parser.add_argument("--prefix-cache-mode", choices=["disable", "radix"], default="radix")
    parser.add_argument("--enable-debug", action="store_true")
    parser.add_argument("--overrides", default="")
    given = parser.parse_args(arguments)
    assert given.model_lib.is_file() and (given.model / "mlc-chat-config.json").is_file()
    if pids := os.environ.get("LLMCB_STAND_IN_PID"):
        # What it starts is to end with it.
        child = subprocess.Popen(["sleep", "600"])
        pathlib.Path(pids).write_text(f"{os.getpid()} {child.pid}")
    print("loading model", given.model, file=sys.stderr, flush=True)
    if does("crashes at load"):
        raise RuntimeError("Insufficient GPU memory error: The available single GPU memory is 1.000 MB")
    if does("never ready"):
        time.sleep(600)
    if does("slow start"):
        time.sleep(1.5)
    if does("port taken"):
        print(f"ERROR: [Errno 98] error while attempting to bind on address ('127.0.0.1', {given.port}): address already in use", file=sys.stderr)
        sys.exit(1)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, status, value):
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def is_allowed(self):
            if self.headers.get("Authorization") == f"Bearer {given.api_key}":
                return True
            self.answer(401, {"detail": "Unauthorized"})
            return False

        def do_GET(self):
            if self.is_allowed():
                self.answer(200, {"object": "list", "data": []})

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self.is_allowed():
                return
            if does("dies in a request"):
                print("InternalError: Check failed: CUDA: out of memory", file=sys.stderr, flush=True)
                os._exit(1)
            if does("refuses"):
                self.answer(400, {"object": "error", "message": "Request prompt has 9 tokens, larger than the limit 8"})
                return
            assert request["stream"] and request["debug_config"]["ignore_eos"] and given.enable_debug
            assert all(isinstance(token, int) for token in request["prompt"])
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True

            def event(value):
                text = value if isinstance(value, str) else json.dumps(value)
                self.wfile.write(f"data: {text}\n\n".encode())
                self.wfile.flush()

            tokens = request["max_tokens"]
            # A token that ends within a character shows nothing: the next one shows both.
            for _ in range(tokens // 2):
                time.sleep(0.004)
                event({"choices": [{"index": 0, "text": "ab"}], "usage": None})
                if does("breaks a stream off"):
                    return
            if does("answers garbage"):
                event("<html>")
            if does("gives partial output"):
                tokens -= 1
            if request["stream_options"]["include_usage"]:
                event({"choices": [], "usage": {"prompt_tokens": len(request["prompt"]), "completion_tokens": tokens}})
            event("[DONE]")

    http.server.ThreadingHTTPServer((given.host, given.port), Handler).serve_forever()
