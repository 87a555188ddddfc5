"""Specs of every kind that a command line is made of, for tests of the flags."""

from typing import Any

from hypothesis import strategies as st
from tests.unit.schemas import valid_values

from falcon_engine import profiles
from falcon_operator.api import crd
from falcon_operator.api.resource import parse
from falcon_operator.api.spec import Spec

Json = dict[str, Any]
ALL = [profiles.load(v) for v in profiles.VERSIONS]
SPEC: Json = crd.manifest()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
ENGINE: Json = SPEC["properties"]["engine"]["properties"]


def _in_all(flag: str) -> list[str]:
    return sorted(set.intersection(*({str(c) for c in p.flags[flag].choices} for p in ALL)))


# Texts of any pattern take hypothesis a hundred times as long as the rest, and these are handed on as they are.
TEXTS = {
    "version": st.sampled_from(("0.26.0", "0.33")),
    "reasoningParser": st.sampled_from(_in_all("--reasoning-parser")),
    "toolCallParser": st.sampled_from(_in_all("--tool-call-parser")),
}
FIELDS = {name: TEXTS[name] if name in TEXTS else valid_values(field) for name, field in ENGINE.items()}
FIELDS = {name: field for name, field in FIELDS.items() if name not in ("env", "extraArgs")}
HUB = {"repository": "tiiuae/Falcon-H1R-7B", "revision": "0123456789abcdef0123456789abcdef01234567"}
SOURCES: tuple[Json, ...] = (
    {"baked": {"path": "/m"}},
    {"volume": {"claimName": "c"}},
    {"oci": {"reference": "r"}},
    {"huggingFace": HUB},
)
_CONTENTS = st.fixed_dictionaries(
    {},
    optional={
        "engine": st.fixed_dictionaries({}, optional=FIELDS),
        "model": st.fixed_dictionaries(
            {"source": st.sampled_from(SOURCES)},
            optional={"names": st.lists(st.sampled_from(("a", "b/c", "d-1.2")), min_size=1, max_size=3, unique=True)},
        ),
        "gpu": st.fixed_dictionaries({"count": st.integers(0, 8)}),
        "rollout": st.fixed_dictionaries({"drainTimeout": st.sampled_from(("1s", "90s", "5m", "1h"))}),
        "fit": st.sampled_from(("Clamp", "Refuse")),
    },
)


def spec_of(content: Json) -> Spec:
    return parse({"metadata": {"name": "a", "namespace": "b", "uid": "u"}, "spec": content}).spec


SPECS: st.SearchStrategy[Spec] = _CONTENTS.map(spec_of)
