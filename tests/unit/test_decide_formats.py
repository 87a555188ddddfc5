"""In which format weights will be computed, and are: as the operator foresees it and says it."""

from typing import Any

from falcon_engine import compute_format, profiles
from falcon_engine.compute_format import Choice
from falcon_engine.shape import FALCON_H1R_7B
from falcon_operator.api.spec import Spec
from falcon_operator.decide import formats
from falcon_operator.decide.gpu import Product
from falcon_operator.decide.report import Computed
from falcon_operator.desired.gpu_needs import needs

H200_KIND = Product("NVIDIA-H200", 139.8, 1, "9.0")


def formats_of(spec: dict[str, Any], product: Product = H200_KIND, gib: float = 139.2) -> Choice:
    return formats.choice(Spec.model_validate(spec), profiles.load("0.26"), product, gib)


def test_the_format_is_foreseen_as_the_launcher_will_decide_it() -> None:
    auto = formats_of({})
    assert auto.format in ("FP8", "BF16")
    assert "times as fast as NVFP4 at 250 sequences on an NVIDIA H200" in auto.why
    assert formats_of({"engine": {"computeFormat": "NVFP4"}}).format == "NVFP4"
    assert formats_of({}, Product("NVIDIA-B200", 178.0, 1, "10.0")).format == "NVFP4"
    assert formats_of({}, Product("NVIDIA-H200", 139.8, 1, None)).format == "NVFP4"
    small = formats_of({"cache": {"size": "8Gi"}})
    assert small.format == "NVFP4"
    assert "but the cache has 8.0 of 8.0 GiB free" in small.why


def test_the_weights_that_are_computed_count() -> None:
    for form, weights in (("NVFP4", "nvfp4"), ("FP8", "fp8-without-in-proj"), ("BF16", "bf16"), ("Auto", None)):
        spec = Spec.model_validate({"engine": {"computeFormat": form}})
        profile = profiles.load("0.26")
        chosen = formats.choice(spec, profile, H200_KIND, 139.2)
        found = formats.ask_of(spec, profile, chosen).weights
        assert found == (weights or compute_format.expanded_weights("nvfp4", chosen.format, FALCON_H1R_7B))


def test_the_format_is_said_of_what_runs_or_else_of_what_will() -> None:
    choices = ((H200_KIND, Choice("BF16", "It is faster.")), (H200_KIND, Choice("BF16", "It is faster.")))
    will = formats.words(None, choices, on_cpu=False, kept=True)
    assert will == " Weights will be computed in BF16: It is faster."
    anew = " They are made again for every pod: spec.cache, with a claim or a size, keeps them."
    assert formats.words(None, choices, on_cpu=False, kept=False) == will + anew
    runs = formats.words(Computed("FP8", "It is fastest.", 23.4), choices, on_cpu=False, kept=True)
    assert runs == " Weights are computed in FP8: It is fastest. Making them took 23 s."
    native = Computed("NVFP4", "It is native.")
    assert formats.words(native, choices, on_cpu=False, kept=False) == " Weights are computed in NVFP4: It is native."
    assert formats.words(native, (), on_cpu=True, kept=False) == ""
    assert formats.words(None, (), on_cpu=False, kept=False) == ""


def test_what_an_engine_cannot_do_without_depends_on_the_format_that_is_asked_for() -> None:
    def least(form: str) -> int:
        found = needs(Spec.model_validate({"engine": {"computeFormat": form}}), profiles.load("0.26"))
        assert found is not None
        return found.memory_mib

    assert least("Auto") == least("NVFP4") < least("FP8") < least("BF16")
