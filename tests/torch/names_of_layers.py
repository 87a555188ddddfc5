"""Prints what vLLM calls the linear layers of a Falcon-H1, as one JSON list: `names_of_layers.py DIRECTORY`."""

# mypy: disable-error-code="import-not-found"
# (torch and vLLM are only in the image)

import json
import os
import sys

os.environ |= {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}

import torch
from vllm.config import set_current_vllm_config
from vllm.distributed import init_distributed_environment, initialize_model_parallel
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.quantization.modelopt import ModelOptNvFp4Config
from vllm.model_executor.models.falcon_h1 import FalconH1ForCausalLM


class Named(ModelOptNvFp4Config):  # type: ignore[misc]
    """A quantization config that quantizes nothing and keeps the names that it is asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def get_quant_method(self, layer: object, prefix: str) -> object:
        """What vLLM asks of a quantization config for each of its layers."""
        if isinstance(layer, LinearBase):
            self.names.append(prefix)
            return UnquantizedLinearMethod()
        return None


def main(directory: str) -> None:
    """Build the model without memory for its weights, and print the names."""
    config = EngineArgs(model=directory, max_model_len=256, skip_tokenizer_init=True).create_engine_config()
    named = Named()
    config.quant_config = named
    with set_current_vllm_config(config):
        init_distributed_environment(1, 0, "tcp://127.0.0.1:0", 0, "gloo")
        initialize_model_parallel(1, 1)
        with torch.device("meta"):
            FalconH1ForCausalLM(vllm_config=config)
    print(json.dumps(named.names))


if __name__ == "__main__":
    main(sys.argv[1])
