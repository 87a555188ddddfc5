"""Which of this project's vLLM plugins an engine needs, and the variables that make vLLM find and use them.

They are beside this package in the launcher's archive (`falcon_vllm`), and are Python that vLLM's processes run: the
launcher itself only names them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from falcon_engine import loader
from falcon_engine.intent import Intent
from falcon_engine.locate import Engine
from falcon_engine.profiles import Profile
from falcon_engine.signatures import CONFIGURATION_EXIT, Diagnosis, Refusal

# Functions of `falcon_vllm.entry`, and what vLLM's list of plugins calls them.
NVFP4_ON_CPU = "falcon_nvfp4_on_cpu"
LOADER = "falcon_h1_loader"
NAMES = (NVFP4_ON_CPU, LOADER)
# A plugin that this variable does not name does nothing.
VARIABLE = "FALCON_PLUGINS"
# vLLM's own: where it is set, it names the plugins that may run.
ALLOWED = "VLLM_PLUGINS"
_ARCHIVE = Path(__file__).resolve().parents[1]


def prepare(
    intent: Intent,
    profile: Profile,
    engine: Engine,
    nvfp4: bool | None,
    present: Mapping[str, str],
    log: Callable[[str], None],
) -> dict[str, str]:
    """The variables for this engine, on top of those that are `present`; none where stock vLLM is all that it takes.

    `nvfp4`: whether the checkpoint is; None where it is not here yet. Raises `Refusal` where nothing could load it.
    """
    state = loader.state(profile, engine.package)
    names = wanted(intent.device, profile, nvfp4, state)
    if NVFP4_ON_CPU in names:
        log("NVFP4 weights become BF16 in memory: vLLM multiplies them on GPUs alone, this project's plugin on CPU")
    if LOADER in names:
        log(f"this project's plugin loads the model, since vLLM {profile.version} {loader.obstacles(profile)[0]}")
    elif state == loader.PATCHED and nvfp4 and intent.device == "cuda":
        log(f"{engine.package}/{loader.MODEL} is patched by the image: left alone")
    return variables(names, present, str(_ARCHIVE)) if names else {}


def wanted(device: str, profile: Profile, nvfp4: bool | None, state: str) -> tuple[str, ...]:
    """The plugins' names; `state` is `loader.state`'s.

    Raises `Refusal` for an NVFP4 checkpoint on the CPU of a vLLM that cannot be taught it.
    """
    if nvfp4 is False:
        return ()
    if device == "cuda":
        return (LOADER,) if state == loader.PLUGIN else ()
    if profile.fact("loader")["cpuKernel"]:
        return (NVFP4_ON_CPU,)
    if nvfp4 is None:
        return ()
    message = f"The checkpoint is NVFP4, and vLLM {profile.version} multiplies that on GPUs alone."
    hint = "Use a checkpoint in BF16, a GPU, or an image with vLLM 0.32 or newer, which this project teaches it on CPU."
    raise Refusal(Diagnosis("CheckpointUnusable", message, hint, CONFIGURATION_EXIT))


def variables(names: tuple[str, ...], present: Mapping[str, str], archive: str) -> dict[str, str]:
    """What makes vLLM's processes import these plugins from `archive`, a file or folder of packages, and run them."""
    given = {VARIABLE: ",".join(names), "PYTHONPATH": _joined(archive, present.get("PYTHONPATH", ""), ":")}
    if ALLOWED in present:
        given[ALLOWED] = _joined(present[ALLOWED], ",".join(names), ",")
    return given


def _joined(first: str, second: str, by: str) -> str:
    return by.join(part for part in (first, second) if part)
