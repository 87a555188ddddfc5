"""The fit against vLLM's own code, which was run for these configurations of Falcon-H1R-7B in each version.

`fit_by_vllm.json` holds by version what vLLM's block alignment and `get_kv_cache_configs` made of them: device, KV
dtype, SSM dtype, prefix caching, tensor parallel size, --block-size, max_model_len, bytes available; then tokens of a
block, blocks, KV tokens and concurrency; or, where vLLM refuses, tokens of a block, null and the longest sequence it
proposes.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from falcon_engine import profiles
from falcon_engine.fit import Ask, fit
from falcon_engine.shape import FALCON_H1R_7B

CASES = json.loads(Path(__file__).with_name("fit_by_vllm.json").read_text())


@pytest.mark.parametrize("version", CASES)
def test_every_figure_is_the_engines_own(version: str) -> None:
    profile, exact = profiles.select(version)
    assert exact
    assert len(CASES[version]) >= 12
    for case in CASES[version]:
        device, kv, ssm, caching, parallel, block, length, available, *expected = case
        ask = Ask(length, 8, 0.9, kv, caching, "bf16", parallel, ssm, device=device, block_size=block)
        found = fit(FALCON_H1R_7B, profile, ask, kv_available_gib=available / 2**30)
        figures: list[Any] = [found.block_tokens, found.blocks, found.tokens, found.max_concurrency]
        if expected[1] is None:
            assert found.verdict == "Refused", case
            proposed = f"at most {expected[2]:,}." if expected[2] else "it needs more memory."
            assert found.message.endswith(proposed), case
            figures[1:] = expected[1:]
        assert figures == expected, case
