"""The scaling rules of other projects, by their documented defaults.

| rule | signal | how old | scales up | scales down |
| --- | --- | --- | --- | --- |
| `hpa-waiting` | sum of waiting requests, 5 a replica | scraped every 15 s, read every 15 s | at once, by 4 or 100 % in 15 s | highest of 300 s |
| `hpa-in-flight` | running and waiting, 70 % of the batch a replica | the same | the same | the same |
| `keda` | sum of waiting requests, 5 a replica | the same; zero: every 30 s | the same | the same; to zero after 300 s |
| `knative-kpa` | concurrency, 70 % of the batch a replica | 1 s, decides every 2 s | 60 s mean; 6 s mean from twice the capacity on | 60 s mean, not in panic; at most half in 2 s |
| `kubeai` | active requests, 100 a replica | decides every 10 s | mean of 10 min | the same, at the fourth look |
| `aibrix-apa` | KV use 0.5, waiting 100 a replica | decides every 10 s | mean of 180 s, 10 % tolerance, at most double | the same, highest of 300 s, at least half |
| `aibrix-apa-code` | the same | the same | the same | lowest of 300 s, as the code has it |
| `llmd-wva` | highest KV use and queue of a minute | decides every 30 s, scraped twice, read every 15 s | +1, after 120 s | -1, after 120 s |
| `dynamo` | TTFT and ITL predicted by fitted lines | decides every 5 s | +1, not while one starts | -1, with 20 % to spare |
| `dynamo-throughput` | KV use and queue | decides every 5 s | +1 over 100 % | -1 under 60 % |

Sources, as read (project, commit, date of the commit): Kubernetes HPA (files and commits in `hpa.py`); KEDA 8b4f083c,
2026-08-20, its documents a55c5d34, 2026-08-20; vLLM production-stack a6c01db0, 2026-08-05; Knative serving 98e5ef90,
2026-08-21; KubeAI 2f32ef49, 2025-07-06; AIBrix e3e10f9e, 2026-08-22; WVA b08b1c77, 2026-02-19 (v0.5), with llm-d's
guide 739e6a61; Dynamo files of 2026 (commits in `dynamo.py`). Each module lists its constants with the file each was
read in, and where the rule here departs from its original, and why. Where a project leaves a choice, the one that
serves its users better is taken.

All are in `PEERS`: a name and what makes a fresh rule of (cold start in seconds, sequences that an engine takes at a
time, least and most replicas).
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.autoscale.peers import (
    aibrix_apa,
    dynamo,
    hpa_in_flight,
    hpa_waiting,
    keda,
    knative_kpa,
    kubeai,
    llmd_wva,
)
from benchmarks.autoscale.policy import Policy

Factory = Callable[[float, int, int, int], Policy]

PEERS: Mapping[str, Factory] = {
    "hpa-waiting": hpa_waiting.policy,
    "hpa-in-flight": hpa_in_flight.policy,
    "keda": keda.policy,
    "knative-kpa": knative_kpa.policy,
    "kubeai": kubeai.policy,
    "aibrix-apa": aibrix_apa.policy,
    "aibrix-apa-code": aibrix_apa.policy_of_code,
    "llmd-wva": llmd_wva.policy,
    "dynamo": dynamo.policy,
    "dynamo-throughput": dynamo.policy_of_throughput,
}
