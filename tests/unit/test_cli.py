import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from falcon_operator import __version__
from falcon_operator.api import crd, names
from falcon_operator.api.config import OperatorConfig
from falcon_operator.cli import _config, _parser, main

RESOURCE = """
apiVersion: serving.falcon-operator.io/v1alpha1
kind: FalconNVFP4Deployment
metadata: {name: web, namespace: llm}
spec: {replicas: 2}
"""


def config(*options: str, **environment: str) -> OperatorConfig:
    return _config(_parser(environment).parse_args(["run", *options]))


def test_without_options_the_defaults_of_the_configuration_hold() -> None:
    assert config() == OperatorConfig()


def test_each_setting_can_come_from_the_environment() -> None:
    found = config(
        FALCON_OPERATOR_DEFAULT_IMAGE="registry.example/vllm:1",
        FALCON_OPERATOR_GATEWAY_IMAGE="registry.example/haproxy:1",
        FALCON_OPERATOR_QUANTIZER_IMAGE="registry.example/quantizer:1",
        FALCON_OPERATOR_OPERATOR_NAMESPACE="falcon-system",
        FALCON_OPERATOR_MONITORING_NAMESPACES="prom, victoria",
        FALCON_OPERATOR_CLUSTER_DOMAIN="corp.example",
        FALCON_OPERATOR_ALLOW_TRUST_REMOTE_CODE="true",
        FALCON_OPERATOR_WATCH_NAMESPACES="a, b",
        FALCON_OPERATOR_WORKERS="4",
        FALCON_OPERATOR_RESYNC_SECONDS="60",
        FALCON_OPERATOR_SWEEP_SECONDS="30.5",
        FALCON_OPERATOR_LOG_LEVEL="debug",
        FALCON_OPERATOR_LOG_FORMAT="text",
        FALCON_OPERATOR_LISTEN_PORT="9090",
    )
    assert found == OperatorConfig(
        default_image="registry.example/vllm:1",
        gateway_image="registry.example/haproxy:1",
        quantizer_image="registry.example/quantizer:1",
        operator_namespace="falcon-system",
        monitoring_namespaces=("prom", "victoria"),
        cluster_domain="corp.example",
        allow_trust_remote_code=True,
        watch_namespaces=("a", "b"),
        workers=4,
        resync_seconds=60,
        sweep_seconds=30.5,
        log_level="debug",
        log_format="text",
        listen_port=9090,
    )


def test_an_option_wins_over_the_environment() -> None:
    found = config("--workers", "8", "--namespace", "x", "--namespace", "y", FALCON_OPERATOR_WORKERS="4",
                   FALCON_OPERATOR_WATCH_NAMESPACES="a")  # fmt: skip
    assert (found.workers, found.watch_namespaces) == (8, ("x", "y"))
    found = config("--monitoring-namespace", "m", FALCON_OPERATOR_MONITORING_NAMESPACES="a")
    assert found.monitoring_namespaces == ("m",)
    assert config(FALCON_OPERATOR_MONITORING_NAMESPACES="").monitoring_namespaces == ()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"FALCON_OPERATOR_WORKERS": "0"}, "'0' is not a whole number of at least 1"),
        ({"FALCON_OPERATOR_WORKERS": "many"}, "'many' is not a whole number of at least 1"),
        ({"FALCON_OPERATOR_LOG_FORMAT": "xml"}, "'xml' is none of json, text"),
    ],
)
def test_a_bad_setting_is_named(environment: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        config(**environment)
    assert said in capsys.readouterr().err


def test_crds_prints_the_definition_and_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crds"]) == 0
    assert capsys.readouterr().out == crd.render()
    assert main(["crds", "--chart", "--out", str(tmp_path)]) == 0
    assert (tmp_path / f"{names.CRD_NAME}.yaml").read_text() == crd.render_for_chart()


def test_render_prints_what_would_be_created(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(RESOURCE)
    assert main(["render", str(file)]) == 0
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    kinds = [document["kind"] for document in documents]
    assert {"ConfigMap", "Deployment", "Service"} <= set(kinds)
    assert all(document["metadata"]["namespace"] == "llm" for document in documents)
    assert documents[kinds.index("Deployment")]["spec"]["replicas"] == 2


def test_render_says_that_an_autoscaled_number_is_where_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(RESOURCE.replace("replicas: 2", "autoscaling: {minReplicas: 3, maxReplicas: 8}"))
    assert main(["render", str(file)]) == 0
    said = capsys.readouterr().out
    documents = list(yaml.safe_load_all(said))
    engines = next(d for d in documents if d["kind"] == "Deployment" and d["metadata"]["name"] == "web")
    assert engines["spec"]["replicas"] == 3
    remark = "# spec.replicas is where it begins: the autoscaler sets it from 3 to 8."
    assert [line for line in said.splitlines() if line.startswith("#")] == [remark]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Pod", "not a FalconNVFP4Deployment: a Pod"),
        ("", "there is no resource in it"),
        ("a: [", "this is not YAML"),
        ("3", "not a FalconNVFP4Deployment: 3"),
        (RESOURCE.replace("v1alpha1", "v9"), "apiVersion is 'serving.falcon-operator.io/v9'"),
        (RESOURCE.replace("{name: web, namespace: llm}", "web"), "metadata is 'web'"),
        ("kind: FalconNVFP4Deployment", "metadata.name is missing"),
        (RESOURCE.replace("replicas: 2", "replicas: -1"), "replicas"),
    ],
)
def test_render_says_what_stands_in_the_way(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(text)
    assert main(["render", str(file)]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["crds", "render", "fit"])
def test_commands_without_a_cluster_load_neither_kopf_nor_a_client(command: str, tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(RESOURCE)
    arguments = (
        [command]
        if command == "crds"
        else {"fit": [command, str(file), "--gpu", "H200"]}.get(command, [command, str(file)])
    )
    code = (
        "import sys; from falcon_operator.cli import main; main(sys.argv[1:]);"
        "sys.exit(','.join({'kopf', 'kubernetes', 'aiohttp'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_tune_says_where_to_run_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--out", "x"]) == 1
    said = capsys.readouterr().err
    assert "no vllm here" in said
    assert "kubectl exec POD -c engine -- python3 /falcon/launch.pyz tune" in said
    assert said.count("\n") == 1


def test_tune_tells_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["tune", "--help"])
    assert "--state-dtype" in capsys.readouterr().out


def test_the_version_is_the_projects(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"falcon-operator {__version__}\n"
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'version = "{__version__}"' in project
