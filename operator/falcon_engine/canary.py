"""The canary: an engine that says it is healthy has to complete one token before its pod is started."""

import json
from collections.abc import Mapping

from falcon_engine import loopback

SECONDS = 60.0
KEY_VARIABLE = "VLLM_API_KEY"


def ask(port: int, model: str, environ: Mapping[str, str], seconds: float = SECONDS) -> str | None:
    """Ask for one token over loopback. None where it comes, else one sentence on what came instead."""
    body = json.dumps({"model": model, "prompt": "1", "max_tokens": 1, "temperature": 0}).encode()
    headers = {"Content-Type": "application/json"}
    if key := environ.get(KEY_VARIABLE):
        headers["Authorization"] = f"Bearer {key}"
    answer = loopback.request("POST", port, "/v1/completions", seconds, body, headers)
    if answer is None:
        return f"no answer to a completion of one token within {seconds:.0f} s, or the connection was closed."
    status, text = answer
    if status != 200:
        return f"a completion of one token was answered with status {status}: {_short(text)}."
    try:
        choice = json.loads(text)["choices"][0]
        if isinstance(choice["text"], str):
            return None
    except (ValueError, LookupError, TypeError):
        pass
    return f"a completion of one token was answered with something else: {_short(text)}."


def _short(text: str) -> str:
    """The message of an error in vLLM's form, or the text's beginning, as one line without a full stop."""
    try:
        error = json.loads(text)["error"]
        text = str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, LookupError, TypeError):
        pass
    words = " ".join(text.split())
    return (words if len(words) <= 200 else words[:197] + "...").rstrip(".") or "nothing"
