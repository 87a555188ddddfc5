import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from falcon_operator.kube import connection as connection_module
from falcon_operator.kube.client import KubeClient
from falcon_operator.kube.connection import Connection, ConnectionProblem, connect
from falcon_operator.kube.errors import (
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from falcon_operator.kube.resources import DEPLOYMENT, FALCON, NODE, POD, SERVICE, resource_of
from falcon_operator.telemetry.metrics import Metrics

Json = dict[str, Any]
Answer = Callable[[web.Request], web.Response]
SERVICE_BODY = {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "ns", "name": "web"}}


class Api:
    """An API server that answers as the test says, and the client under test."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], str, str]] = []
        self.answers: list[Answer] = []
        self.tokens = iter(["t1", "t2", "t3"])
        self.metrics = Metrics()

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.text()
        self.requests.append((request.method, request.path, dict(request.query), body, request.content_type))
        self.authorization = request.headers.get("Authorization")
        self.agent = request.headers["User-Agent"]
        return self.answers.pop(0)(request)

    def start(self, server: str) -> None:
        self.connection = Connection(server, None, lambda: next(self.tokens))
        self.client = KubeClient(self.connection, self.metrics)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    api = Api()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", api.handle)
    server = TestServer(application)
    await server.start_server()
    api.start(str(server.make_url("")).rstrip("/"))
    yield api
    await api.client.close()
    await server.close()


def ok(body: Json) -> Answer:
    return lambda _: web.json_response(body)


def status(code: int, reason: str = "Some", message: str = "said", **headers: str) -> Answer:
    return lambda _: web.json_response({"reason": reason, "message": message}, status=code, headers=headers)


async def test_an_apply_says_who_and_what(api: Api) -> None:
    api.answers = [ok({"metadata": {"uid": "u"}})]
    answer = await api.client.apply(SERVICE, SERVICE_BODY, "falcon-operator", force=True)
    assert answer == {"metadata": {"uid": "u"}}
    method, path, query, body, content_type = api.requests[0]
    assert (method, path) == ("PATCH", "/api/v1/namespaces/ns/services/web")
    assert query == {"fieldManager": "falcon-operator", "force": "true"}
    assert json.loads(body) == SERVICE_BODY
    assert content_type == "application/apply-patch+yaml"
    assert api.authorization == "Bearer t1"
    assert api.agent.startswith("falcon-operator/")


async def test_an_apply_without_force_does_not_ask_for_it_and_a_status_goes_to_its_subresource(api: Api) -> None:
    api.answers = [ok({}), ok({})]
    await api.client.apply(SERVICE, SERVICE_BODY, "m")
    assert api.requests[0][2] == {"fieldManager": "m"}
    await api.client.apply(FALCON, {"metadata": {"namespace": "ns", "name": "web"}}, "m", subresource="status")
    assert api.requests[1][1].endswith("/falconnvfp4deployments/web/status")


async def test_a_deletion_names_the_incarnation(api: Api) -> None:
    api.answers = [ok({})]
    await api.client.delete(DEPLOYMENT, "ns", "web", "u1")
    method, path, _, body, _ = api.requests[0]
    assert (method, path) == ("DELETE", "/apis/apps/v1/namespaces/ns/deployments/web")
    assert json.loads(body)["preconditions"] == {"uid": "u1"}
    assert json.loads(body)["propagationPolicy"] == "Background", "or a Job would leave its pods behind"


async def test_a_list_comes_in_chunks(api: Api) -> None:
    api.answers = [
        ok({"metadata": {"continue": "more"}, "items": [{"n": 1}]}),
        ok({"metadata": {}, "items": [{"n": 2}]}),
    ]
    assert await api.client.list(POD, "ns", "a=b,c=d") == [{"n": 1}, {"n": 2}]
    assert [query for _, _, query, _, _ in api.requests] == [
        {"limit": "500", "labelSelector": "a=b,c=d"},
        {"limit": "500", "labelSelector": "a=b,c=d", "continue": "more"},
    ]
    api.answers = [ok({"metadata": {}, "items": None})]
    assert await api.client.list(POD) == []
    assert api.requests[-1][1] == "/api/v1/pods"


async def test_a_list_of_nodes_is_made_smaller_chunk_by_chunk(api: Api) -> None:
    api.answers = [
        ok({"metadata": {"continue": "more"}, "items": [{"n": 1, "images": []}]}),
        ok({"metadata": {}, "items": [{"n": 2, "images": []}]}),
    ]
    found = await api.client.list(NODE, None, None, lambda body: {"n": body["n"]})
    assert found == [{"n": 1}, {"n": 2}]
    assert {(path, query["limit"]) for _, path, query, _, _ in api.requests} == {("/api/v1/nodes", "100")}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, Invalid),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (422, Invalid),
        (429, TooManyRequests),
        (418, ApiError),
        (500, Unavailable),
        (503, Unavailable),
    ],
)
async def test_each_refusal_has_its_type_and_the_servers_sentence(api: Api, code: int, kind: type[ApiError]) -> None:
    api.answers = [status(code, "Because", "it is so", **{"Retry-After": "7"})]
    with pytest.raises(kind) as caught:
        await api.client.apply(SERVICE, SERVICE_BODY, "m")
    assert type(caught.value) is kind
    assert (caught.value.reason, caught.value.message, caught.value.retry_after) == ("Because", "it is so", 7.0)
    assert len(api.requests) == 1, "a write is never repeated by the client"


async def test_a_proxys_error_page_is_a_message_too(api: Api) -> None:
    api.answers = [lambda _: web.Response(status=502, text="<h1>Bad Gateway</h1>")]
    with pytest.raises(Unavailable, match="Bad Gateway"):
        await api.client.apply(SERVICE, SERVICE_BODY, "m")


async def test_a_read_is_repeated_and_a_new_token_is_read_after_a_401(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []

    async def sleep(seconds: float) -> None:
        delays.append(seconds)

    monkeypatch.setattr("falcon_operator.kube.client.asyncio.sleep", sleep)
    api.answers = [status(401), status(429, **{"Retry-After": "3"}), ok({"metadata": {}})]
    await api.client.get(SERVICE, "ns", "web")
    assert api.authorization == "Bearer t2"
    assert delays == [0.8, 3.0]
    api.answers = [status(503)] * 3
    with pytest.raises(Unavailable):
        await api.client.get(SERVICE, "ns", "web")


async def test_no_answer_is_an_error_that_passes() -> None:
    client = KubeClient(Connection("http://127.0.0.1:1", None, lambda: None), Metrics())
    with pytest.raises(Unavailable, match="no answer from the API server"):
        await client.apply(SERVICE, SERVICE_BODY, "m")
    await client.close()


async def test_an_answer_that_is_no_object_is_an_error(api: Api) -> None:
    api.answers = [lambda _: web.Response(text="[]")]
    with pytest.raises(ApiError, match="is not an object"):
        await api.client.apply(SERVICE, SERVICE_BODY, "m")


async def test_requests_are_counted_as_controller_runtime_counts_them(api: Api) -> None:
    api.answers = [ok({}), status(409)]
    await api.client.apply(SERVICE, SERVICE_BODY, "m")
    with pytest.raises(Conflict):
        await api.client.apply(SERVICE, SERVICE_BODY, "m")
    text = api.metrics.render().decode()
    host = api.connection.server.removeprefix("http://")
    for code in ("200", "409"):
        assert f'rest_client_requests_total{{code="{code}",host="{host}",method="PATCH"}} 1.0' in text


def test_the_token_is_read_again_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("falcon_operator.kube.connection.time.monotonic", lambda: now)
    tokens = iter(["a", "b"])
    connection = Connection("https://h", None, lambda: next(tokens))
    assert connection.authorization() == {"Authorization": "Bearer a"}
    now = 59.0
    assert connection.authorization() == {"Authorization": "Bearer a"}
    now = 61.0
    assert connection.authorization() == {"Authorization": "Bearer b"}
    assert Connection("https://h", None, lambda: None).authorization() == {}


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(connection_module, "SERVICE_ACCOUNT", tmp_path / "account")
    return tmp_path


async def test_without_any_configuration_the_way_out_is_named(no_environment: Path) -> None:
    with pytest.raises(ConnectionProblem, match="set KUBECONFIG"):
        await connect()


async def test_a_pod_without_a_token_is_told_so(no_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(ConnectionProblem, match="automountServiceAccountToken"):
        await connect()


async def test_a_kubeconfig_with_a_token(no_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = no_environment / "config"
    named = {"name": "x"}
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "x",
                "contexts": [{**named, "context": {"cluster": "x", "user": "x"}}],
                "clusters": [{**named, "cluster": {"server": "http://127.0.0.1:1/"}}],
                "users": [{**named, "user": {"token": "secret"}}],
            }
        )
    )
    monkeypatch.setenv("KUBECONFIG", str(path))
    connection = await connect()
    assert (connection.server, connection.tls) == ("http://127.0.0.1:1", None)
    assert connection.authorization() == {"Authorization": "Bearer secret"}
    assert "secret" not in repr(connection)
    monkeypatch.setenv("KUBECONFIG", str(no_environment / "missing"))
    with pytest.raises(ConnectionProblem, match="missing cannot be used"):
        await connect()


def test_paths_are_the_api_servers() -> None:
    assert FALCON.path() == "/apis/serving.falcon-operator.io/v1alpha1/falconnvfp4deployments"
    assert POD.path("ns", "p") == "/api/v1/namespaces/ns/pods/p"
    assert (FALCON.group, FALCON.version, POD.group, POD.version) == (
        "serving.falcon-operator.io",
        "v1alpha1",
        "",
        "v1",
    )
    assert resource_of({"apiVersion": "apps/v1", "kind": "Deployment"}) is DEPLOYMENT
    with pytest.raises(ValueError, match="is known as apps/v1"):
        resource_of({"apiVersion": "extensions/v1beta1", "kind": "Deployment"})
