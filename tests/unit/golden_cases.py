"""The specs whose objects are kept as YAML. `python -m tests.unit.golden_cases --write` writes them anew."""

import argparse
from pathlib import Path
from typing import Any

import yaml
from tests.unit.world import World

DIRECTORY = Path(__file__).parent / "golden"

CASES: dict[str, dict[str, Any]] = {
    "empty": {},
    "cpu-demo": {
        "image": {"reference": "localhost/falcon-serving-cpu:0.32.0", "pullPolicy": "Never"},
        "model": {"source": {"baked": {"path": "/models/tiny"}}},
        "engine": {
            "device": "cpu",
            "maxModelLen": 512,
            "maxNumSeqs": 4,
            "kvCacheDtype": "auto",
            "prefixCaching": False,
            "cudaGraphMode": "NONE",
            "extraArgs": ["--kv-cache-memory-bytes=134217728"],
        },
        "gpu": {"count": 1},
        "resources": {"requests": {"cpu": "1000m", "memory": "2048Mi"}, "limits": {"memory": "4Gi"}},
        "startup": {"budget": "10m"},
        "rollout": {"drainTimeout": "30s"},
    },
    "source-volume": {
        "model": {"source": {"volume": {"claimName": "weights", "path": "falcon/nvfp4/"}}},
        "cache": {"claimName": "kernels"},
    },
    "source-oci": {
        "model": {"source": {"oci": {"reference": "registry.example.com/models/falcon:1", "pullPolicy": "Always"}}},
        "image": {"reference": "registry.example.com/vllm/vllm-openai:v0.33.0", "pullSecrets": [{"name": "registry"}]},
        "cache": {"size": "20Gi", "storageClassName": "fast"},
    },
    "source-hugging-face": {
        "model": {
            "source": {
                "huggingFace": {
                    "repository": "tiiuae/Falcon-H1R-7B",
                    "revision": "0123456789abcdef0123456789abcdef01234567",
                    "tokenSecretRef": {"name": "hub", "key": "token"},
                    "cache": {"size": "0.5Ti"},
                }
            }
        }
    },
    "source-quantized": {
        "image": {"pullSecrets": [{"name": "registry"}]},
        "model": {
            "source": {
                "huggingFace": {
                    "repository": "tiiuae/Falcon-H1R-7B",
                    "revision": "0123456789abcdef0123456789abcdef01234567",
                    "tokenSecretRef": {"name": "hub", "key": "token"},
                    "cache": {"size": "40Gi"},
                    "quantize": {
                        "image": "registry.example.com/falcon-quantizer:1",
                        "device": "cuda",
                        "kvScales": "Calibrated",
                        "resources": {"requests": {"cpu": 8}, "limits": {"memory": "24Gi"}},
                    },
                }
            }
        },
        "engine": {"env": [{"name": "HF_ENDPOINT", "value": "https://hub.example.com"}]},
        "scheduling": {
            "nodeSelector": {"zone": "a"},
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [{"matchExpressions": [{"key": "rack", "operator": "Exists"}]}]
                    }
                }
            },
        },
        "podMetadata": {"labels": {"team": "nlp"}},
    },
    "scheduling": {
        "replicas": 3,
        "rollout": {"strategy": "Surge"},
        "gpu": {"products": ["NVIDIA-H100-80GB-HBM3", "NVIDIA-H200"], "memoryAtLeast": "70Gi", "count": 2},
        "scheduling": {
            "nodeSelector": {"zone": "a"},
            "tolerations": [{"key": "dedicated", "value": "llm", "effect": "NoSchedule"}],
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "rack", "operator": "Exists"}]},
                            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-7"]}]},
                        ]
                    }
                },
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}
                    ]
                },
            },
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
            ],
            "priorityClassName": "high",
            "runtimeClassName": "nvidia",
            "schedulerName": "volcano",
            "queueName": "gpus",
        },
        "podMetadata": {"labels": {"team": "nlp"}, "annotations": {"example.com/owner": "nlp@example.com"}},
        "security": {"runAsUser": 1001, "runAsGroup": 1002, "fsGroup": 1003, "readOnlyRootFilesystem": False},
        "engine": {
            "env": [
                {"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"},
                {"name": "DO_NOT_TRACK", "value": "0"},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ]
        },
    },
    "device-claims": {
        "gpu": {
            "claims": [
                {"name": "gpu", "resourceClaimTemplateName": "one-gpu", "request": "gpu"},
                {"name": "shared", "resourceClaimName": "link"},
            ],
            "products": ["NVIDIA-B200"],
        }
    },
    "suspended": {"suspend": True, "replicas": 2},
    "gateway": {
        "networkPolicy": "Off",
        "image": {"pullSecrets": [{"name": "registry"}]},
        "scheduling": {
            "nodeSelector": {"zone": "a"},
            "tolerations": [{"key": "dedicated", "value": "llm", "effect": "NoSchedule"}],
            "priorityClassName": "high",
        },
        "rollout": {"drainTimeout": "30s"},
        "gateway": {
            "replicas": 3,
            "apiKeys": {"secretName": "keys"},
            "holdTimeout": "90s",
            "maxHeldRequests": 60,
            "httpRoute": {
                "parentRefs": [{"name": "public", "sectionName": "https", "port": 443}, {"name": "intern"}],
                "hostnames": ["llm.example.com"],
            },
            "inferencePool": {"endpointPickerRef": {"name": "picker", "port": 9003}},
        },
    },
    "no-gateway": {"gateway": {"enabled": False}},
    "autoscaling": {"replicas": 7, "autoscaling": {"minReplicas": 2, "maxReplicas": 40}},
}


def rendered(spec: dict[str, Any]) -> str:
    """The objects of one spec as YAML; the launcher's bytes are not what is looked at."""
    world = World(spec=spec)
    applied = world.step().apply
    if world.of_kind("Job"):
        world.end_job()
        applied = (*applied, *(body for body in world.plan().apply if body["metadata"]["name"] == "demo"))
    named = {(body["kind"], body["metadata"]["name"]): body for body in applied if body["kind"] != "ConfigMap"}
    return yaml.safe_dump_all(named.values(), sort_keys=True, width=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", required=True, help="write the files of tests/unit/golden")
    parser.parse_args()
    DIRECTORY.mkdir(exist_ok=True)
    for path in DIRECTORY.glob("*.yaml"):
        path.unlink()
    for name, spec in CASES.items():
        (DIRECTORY / f"{name}.yaml").write_text(rendered(spec))


if __name__ == "__main__":
    main()
