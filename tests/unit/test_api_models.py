"""Reading a resource, and the sentence for what cannot be read."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from falcon_operator.api import names
from falcon_operator.api.base import seconds
from falcon_operator.api.config import OperatorConfig
from falcon_operator.api.pending import PENDING_FIELDS, not_yet_implemented
from falcon_operator.api.policy import refusals
from falcon_operator.api.reasons import STANDING_CONDITIONS, ConditionType
from falcon_operator.api.resource import InvalidResourceError, parse
from falcon_operator.api.spec import Spec

CASES: list[dict[str, Any]] = [
    case
    for file in sorted(Path(__file__).parents[1].glob("cluster/schema_cases/*.yaml"))
    for case in yaml.safe_load(file.read_text())
]


def spec_of(spec: Any) -> Spec:
    return parse({"metadata": {"name": "a", "namespace": "b", "uid": "u"}, "spec": spec}).spec


@pytest.mark.parametrize("case", [case for case in CASES if "says" not in case], ids=lambda case: case["name"])
def test_what_the_api_server_accepts_is_read(case: dict[str, Any]) -> None:
    spec_of(case["spec"])


def test_unknown_fields_are_ignored() -> None:
    resource = {
        "metadata": {"name": "a", "namespace": "b", "tomorrow": 1},
        "spec": {"engine": {"flagOfTomorrow": True, "maxNumSeqs": 8}, "more": {}},
        "status": {"conditions": "unreadable"},
    }
    assert parse(resource).spec.engine.max_num_seqs == 8


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"engine": {"maxNumSeqs": 0}}, "engine.maxNumSeqs is 0: input should be greater than or equal to 1"),
        ({"engine": {"device": "tpu"}}, "engine.device is \"tpu\": input should be 'cuda' or 'cpu'"),
        ({"engine": {"version": "v1"}}, 'engine.version is "v1": write a version of vLLM such as 0.33.0'),
        ({"startup": {"budget": "2"}}, 'startup.budget is "2": write a duration such as 90s, 30m or 1h30m, from'),
        ({"startup": {"budget": "48h"}}, 'startup.budget is "48h": write a duration'),
        ({"resources": {"requests": {"memory": "0Gi"}}}, 'resources.requests.memory is "0Gi": write a quantity'),
        ({"model": {"names": ["a", "b c"]}}, 'model.names[1] has "b c": use letters'),
        ({"model": {"source": {"volume": {}}}}, "model.source.volume.claimName is missing"),
        ([], "spec is []: input should be"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(spec: Any, sentence: str) -> None:
    with pytest.raises(InvalidResourceError) as refused:
        spec_of(spec)
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    ("text", "length"), [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("5m5m", 600), ("0s", 0), ("24h", 86400)]
)
def test_seconds(text: str, length: int) -> None:
    assert seconds(text) == length


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ({}, 1),
        ({"engine": {"device": "cpu"}}, 0),
        ({"engine": {"device": "cpu"}, "gpu": {"count": 1}}, 1),
        ({"gpu": {"count": 4}}, 4),
        ({"gpu": {"claims": [{"name": "gpu", "resourceClaimName": "x"}]}}, 0),
    ],
)
def test_effective_gpu_count(spec: Any, count: int) -> None:
    assert spec_of(spec).effective_gpu_count == count


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ({}, []),
        ({"gateway": {"replicas": 2}, "fit": "Refuse"}, []),
        ({"engine": {"maxModelLen": 1}, "model": {"source": {"oci": {"reference": "a/b"}}}}, []),
        ({"model": {"checkpoint": "AsIs"}}, []),
        ({"engine": {"computeFormat": "BF16"}}, []),
        ({"gpu": {"fp4": "Require"}, "startup": {"canary": False}}, []),
        ({"autoscaling": {"mode": "External"}}, []),
        ({"autoscaling": {"maxReplicas": 8}}, []),
        ({"monitoring": {"podMonitor": "Off"}}, ["monitoring.podMonitor"]),
    ],
)
def test_what_is_not_implemented_yet_is_named(spec: Any, fields: list[str]) -> None:
    assert not_yet_implemented(spec_of(spec)) == fields


def test_every_pending_field_exists() -> None:
    # A field that is renamed would otherwise raise at the first resource.
    assert not_yet_implemented(Spec()) == []
    assert len(set(PENDING_FIELDS)) == len(PENDING_FIELDS)


@pytest.mark.parametrize(
    "arg", ["--trust-remote-code", "--trust_remote_code", "--trust-remote-code=true", "--trust-remote-code=\ntrue"]
)
def test_remote_code_is_the_administrators_choice(arg: str) -> None:
    spec = spec_of({"engine": {"extraArgs": ["--seed=1", arg]}})
    [sentence] = refusals(spec, OperatorConfig())
    assert f'engine.extraArgs has "{arg}"' in sentence
    assert refusals(spec, OperatorConfig(allow_trust_remote_code=True)) == []
    assert refusals(spec_of({"engine": {"extraArgs": ["--no-trust-remote-code"]}}), OperatorConfig()) == []


def test_a_part_goes_into_a_pod_as_kubernetes_writes_it() -> None:
    assert [each.manifest() for each in Spec().scheduling.tolerations] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]


def test_names_of_children_fit_a_label() -> None:
    longest = "a" * names.MAX_NAME_LENGTH
    derived = [
        names.revision_name(longest, "0" * 64),
        names.engines_service_name(longest),
        names.cache_claim_name(longest),
        names.model_claim_name(longest),
        names.launcher_name("0" * 64),
    ]
    assert max(map(len, derived)) <= 63


def test_conditions_that_stand_from_the_first_status_on() -> None:
    optional = set(ConditionType) - set(STANDING_CONDITIONS)
    assert optional == {ConditionType.AUTOSCALING_ACTIVE, ConditionType.GATEWAY_READY}
    assert STANDING_CONDITIONS[0] is ConditionType.READY


def test_selector_is_a_label_selector_of_the_labels_on_children() -> None:
    labels = names.child_labels("falcon", "uid")
    terms = dict(term.split("=") for term in names.selector_string("falcon").split(","))
    assert terms.items() <= labels.items()
