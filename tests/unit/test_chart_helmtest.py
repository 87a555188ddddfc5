"""The script of `helm test`, run here against an operator that answers well and ones that do not."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from tests.unit.charts import CHART, RELEASE, Helm, one
from tests.unit.ports import free_port

GOOD = {
    "/readyz": (200, "ok"),
    "/metrics": (200, '# TYPE falcon_operator_info gauge\nfalcon_operator_info{version="1"} 1.0\n'),
}
Answers = dict[str, tuple[int, str]]


@contextmanager
def serving(answers: Answers, port: int = 0) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = answers[self.path]
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def check() -> Iterator[Callable[[Answers], "subprocess.CompletedProcess[str]"]]:
    with ExitStack() as stack:

        def run(answers: Answers) -> "subprocess.CompletedProcess[str]":
            url = stack.enter_context(serving(answers))
            script = str(CHART / "files/helm_test.py")
            return subprocess.run([sys.executable, script, url], capture_output=True, text=True, check=False)

        yield run


def test_a_good_operator_passes(check: Callable[[Answers], "subprocess.CompletedProcess[str]"]) -> None:
    done = check(GOOD)
    assert (done.returncode, done.stderr) == (0, "")
    assert "the operator is ready" in done.stdout


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({**GOOD, "/readyz": (503, "waiting for the first list of pods")}, "answered 503: waiting for the first list"),
        ({**GOOD, "/metrics": (200, "up 1\n")}, "no falcon_operator_info"),
        ({**GOOD, "/metrics": (404, "no such page")}, "answered 404"),
    ],
)
def test_a_bad_operator_fails_with_a_sentence(
    check: Callable[[Answers], "subprocess.CompletedProcess[str]"], answers: Answers, says: str
) -> None:
    done = check(answers)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_one_that_nobody_reaches_fails_once_the_patience_is_over() -> None:
    command = [sys.executable, str(CHART / "files/helm_test.py"), f"http://127.0.0.1:{free_port()}", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "/readyz cannot be reached: " in done.stderr
    assert "Traceback" not in done.stderr


def test_one_that_is_reached_a_moment_later_passes() -> None:
    port = free_port()
    command = [sys.executable, str(CHART / "files/helm_test.py"), f"http://127.0.0.1:{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiting, serving(GOOD, port):
        said, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0
    assert "the operator is ready" in said


def test_the_pod_runs_this_script_against_the_service(helm: Helm) -> None:
    objects = helm.render({"service": {"port": 9090}})
    pod = one(objects, "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    container = pod["spec"]["containers"][0]
    assert container["command"] == ["python3", "-c"]
    assert container["args"][0].strip() == (CHART / "files/helm_test.py").read_text().strip()
    assert container["args"][1] == f"http://{RELEASE}-falcon-operator.falcon-system:9090"
