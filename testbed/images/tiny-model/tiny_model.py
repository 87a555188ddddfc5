"""Make a tiny Falcon-H1 in BF16 with random weights, offline and the same each time: in NVFP4 the CPU engine serves it.

usage: tiny_model.py DIRECTORY

It has the architecture, the chat template's `<think>` and the file names of a real checkpoint, 0.7 M parameters, and
says nothing that makes sense.
"""

# mypy: disable-error-code="import-not-found"
# (torch and transformers are only in the image)

import os
import random
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import FalconH1Config, FalconH1ForCausalLM, GenerationConfig, PreTrainedTokenizerFast

VOCABULARY = 1024
PAD, BEGIN, END, TURN, TURN_END = "<|pad|>", "<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"
SPECIAL = [PAD, BEGIN, END, TURN, TURN_END, "<think>", "</think>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
# Random Mamba weights of the usual size add almost nothing to the output: a wrong state would go unnoticed.
MAMBA_SCALE = {"in_proj": 8.0, "conv1d": 2.0, "out_proj": 8.0}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on random words."""
    words = ["".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=random.randint(2, 7))) for _ in range(1200)]
    corpus = [" ".join(random.choices(words, k=20)) for _ in range(600)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=TURN_END,
        additional_special_tokens=[TURN, END],
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model() -> FalconH1ForCausalLM:
    """Two layers, each with attention and a Mamba mixer."""
    ids = {"pad_token_id": SPECIAL.index(PAD), "bos_token_id": SPECIAL.index(BEGIN)}
    ids["eos_token_id"] = SPECIAL.index(TURN_END)
    config = FalconH1Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=4096,
        mamba_d_ssm=128,
        mamba_n_heads=4,
        mamba_d_head=32,
        mamba_d_state=32,
        mamba_n_groups=1,
        mamba_d_conv=4,
        mamba_chunk_size=64,
        mamba_rms_norm=False,
        mamba_norm_before_gate=False,
        tie_word_embeddings=False,
        **ids,
    )
    model = FalconH1ForCausalLM(config)
    for layer in model.model.layers:
        for name, factor in MAMBA_SCALE.items():
            getattr(layer.mamba, name).weight.data.mul_(factor)
    model.generation_config = GenerationConfig(**ids)
    return model.to(torch.bfloat16)


def main() -> None:
    """Write the checkpoint; its files are readable by whichever user the pod runs as."""
    directory = Path(sys.argv[1])
    torch.manual_seed(0)
    random.seed(0)
    make_tokenizer().save_pretrained(directory)
    make_model().save_pretrained(directory)
    for file in directory.iterdir():
        file.chmod(0o644)
    print("tiny Falcon-H1:", ", ".join(sorted(file.name for file in directory.iterdir())))


if __name__ == "__main__":
    main()
