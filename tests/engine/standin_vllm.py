"""Stands in for vLLM's command line where no model is served: real processes, real sockets, vLLM's measured manners.

It refuses connections until it is loaded, parses its arguments by a profile's own flag list, ends with exit code 0 when
its engine process dies, drains on SIGTERM up to --shutdown-timeout, and hangs when that runs out. It is told what to do
by files in the directory STANDIN_DIR, and by STANDIN_FAIL (text to print) and STANDIN_CODE (to exit with; below 0
a signal) at the start:
`says` is printed while it loads, `hold` keeps it loading, `running` counts its requests, `completion` is the status of
completions, and each start takes the first of the texts in `failures` (a JSON list), prints it and exits with 1.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

DIRECTORY = Path(os.environ["STANDIN_DIR"])
stopping = threading.Event()

# A process that does nothing until it is ended; its alarm ends it where a test forgets to.
IDLE = "import signal; signal.alarm(600); signal.pause()"


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="vllm serve", add_help=False)
    result.add_argument("model_tag", nargs="?")
    for name, flag in json.loads(Path(os.environ["STANDIN_PROFILE"]).read_text())["flags"].items():
        names = [name, *flag.get("also", ())]
        if flag["kind"] == "switch":
            result.add_argument(*names, action=argparse.BooleanOptionalAction)
        elif flag["kind"] == "flag":
            result.add_argument(*names, action="store_true")
        else:
            nargs = {"values": "+", "optional": "?"}.get(flag["kind"])
            result.add_argument(*names, nargs=nargs, choices=flag.get("choices"))
    return result


def next_failure() -> str | None:
    file = DIRECTORY / "failures"
    failures = json.loads(file.read_text()) if file.exists() else []
    if not failures:
        return None
    file.write_text(json.dumps(failures[1:]))
    return str(failures[0])


def running() -> int:
    file = DIRECTORY / "running"
    return int(file.read_text()) if file.exists() else 0


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b""
        if self.path == "/metrics":
            body = (
                "# TYPE vllm:num_requests_running gauge\n"
                f'vllm:num_requests_running{{engine="0",model_name="m"}} {running()}.0\n'
                'vllm:num_requests_waiting{engine="0",model_name="m"} 0.0\n'
                'vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 7.0\n'
            ).encode()
        self.answer(200, body)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with (DIRECTORY / "asked").open("a") as file:
            file.write(json.dumps([self.path, asked, self.headers.get("Authorization")]) + "\n")
        try:
            status = int((DIRECTORY / "completion").read_text())
        except FileNotFoundError:
            self.answer(200, json.dumps({"choices": [{"index": 0, "text": "!", "finish_reason": "length"}]}).encode())
        else:
            self.answer(status, b'{"error": {"message": "EngineCore encountered an issue."}}')

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def main() -> None:
    (DIRECTORY / "argv.json").write_text(json.dumps(sys.argv))
    args = parser().parse_args(sys.argv[2:])
    if "STANDIN_FAIL" in os.environ:
        print(os.environ["STANDIN_FAIL"], file=sys.stderr, flush=True)
        code = int(os.environ.get("STANDIN_CODE", "1"))
        if code < 0:
            os.kill(os.getpid(), -code)
        sys.exit(code)
    if failure := next_failure():
        print(failure, file=sys.stderr, flush=True)
        sys.exit(1)
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    core = subprocess.Popen([sys.executable, "-c", IDLE])
    # Leaves the group and outlives its parent: what a first process has to end and take in.
    stray = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
    subprocess.run([sys.executable, "-c", stray, sys.executable, "-c", IDLE, "stray"], check=True)
    (DIRECTORY / "core.pid").write_text(str(core.pid))
    print("(APIServer pid=1) loading", flush=True)
    if (DIRECTORY / "says").exists():
        sys.stdout.buffer.write((DIRECTORY / "says").read_bytes())
        sys.stdout.flush()
    while (DIRECTORY / "hold").exists():
        if stopping.wait(0.05):
            print("KeyboardInterrupt: terminated", file=sys.stderr, flush=True)
            core.kill()
            sys.exit(1)
    server = ThreadingHTTPServer((args.host, int(args.port)), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("INFO:     Application startup complete.", file=sys.stderr, flush=True)
    while not stopping.wait(0.05):
        if core.poll() is not None:
            print("EngineDeadError: EngineCore encountered an issue.", file=sys.stderr, flush=True)
            sys.exit(0)
    patience = float(getattr(args, "shutdown_timeout", None) or 0)
    end = time.monotonic() + patience
    while running() and time.monotonic() < end:
        time.sleep(0.05)
    core.kill()
    server.server_close()
    if running() and patience:
        print("force killing remaining processes count=1", file=sys.stderr, flush=True)
        threading.Event().wait()  # seen: the process stays, its streams open and silent
    sys.exit(0)


if __name__ == "__main__":
    main()
