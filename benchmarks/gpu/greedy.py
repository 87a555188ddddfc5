"""Greedy answers of one engine, with the most likely tokens at each place, and how far two engines agree on them."""

from __future__ import annotations

import gzip
import json
import math
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.gpu.server import Server

PROMPTS, PROMPT_TOKENS, ANSWER_TOKENS, LIKELY = 128, 128, 48, 20
_AT_ONCE = 16
# An answer: at each place the token that was taken, and the log-probabilities of the likely ones.
Answer = list[tuple[str, dict[str, float]]]


def capture(server: Server, model: str, words: tuple[int, int], file: Path, prompts: int = PROMPTS) -> None:
    """Ask the same prompts of every engine, and write its answers."""
    chance = random.Random(8)
    texts = [" ".join(f"w{chance.randrange(*words)}" for _ in range(PROMPT_TOKENS)) for _ in range(prompts)]

    def ask(text: str) -> Answer:
        body = {"model": model, "prompt": text, "max_tokens": ANSWER_TOKENS, "temperature": 0, "ignore_eos": True,
                "logprobs": LIKELY, "return_tokens_as_token_ids": True}  # fmt: skip
        told = server.post("/v1/completions", body)["choices"][0]["logprobs"]
        return list(zip(told["tokens"], told["top_logprobs"], strict=True))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = list(pool.map(ask, texts))
    with gzip.open(file, "wt") as out:
        json.dump(answers, out)


def read(file: Path) -> list[Answer]:
    """What `capture` wrote."""
    with gzip.open(file, "rt") as source:
        return [[(token, likely) for token, likely in answer] for answer in json.load(source)]


def compare(reference: Sequence[Answer], other: Sequence[Answer]) -> dict[str, Any]:
    """Agreement of another engine with a reference. Places count while both have written the same tokens before."""
    first = same = places = equal = 0
    first_kl: list[float] = []
    all_kl: list[float] = []
    for ours, theirs in zip(reference, other, strict=True):
        first += ours[0][0] == theirs[0][0]
        first_kl.append(_kl(ours[0][1], theirs[0][1]))
        equal += [token for token, _ in ours] == [token for token, _ in theirs]
        for (token, likely), (other_token, other_likely) in zip(ours, theirs, strict=True):
            places += 1
            same += token == other_token
            all_kl.append(_kl(likely, other_likely))
            if token != other_token:
                break
    return {
        "prompts": len(reference),
        "answer_tokens": len(reference[0]),
        "first_token_agreement": round(first / len(reference), 4),
        "next_token_agreement": round(same / places, 4),
        "places": places,
        "whole_answers_equal": round(equal / len(reference), 4),
        "first_token_kl_mean": round(sum(first_kl) / len(first_kl), 6),
        "kl_mean": round(sum(all_kl) / len(all_kl), 6),
        "kl_p99": round(sorted(all_kl)[len(all_kl) * 99 // 100], 6),
    }


def _kl(reference: dict[str, float], other: dict[str, float]) -> float:
    """KL divergence in nats over the tokens that both list, and one bucket for all others."""
    both = reference.keys() & other.keys()
    p = [math.exp(reference[token]) for token in both]
    q = [math.exp(other[token]) for token in both]
    p.append(max(1.0 - sum(p), 1e-9))
    q.append(max(1.0 - sum(q), 1e-9))
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
