"""What vLLM says of its command line and of settings that contradict each other."""

from falcon_engine.signatures import CONFIGURATION_EXIT, Signature

FLAGS = (
    Signature(
        "flag-unknown",
        "FlagUnknown",
        r"error: unrecognized arguments: (?P<flag>[^\n]{1,300})",
        "The engine does not know the argument {flag}.",
        "Correct or remove it in spec.engine.extraArgs; the names differ between versions of vLLM.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "flag-choice",
        "FlagValueRefused",
        r"error: argument (?P<flag>[^:\n]{1,80}): invalid choice: (?P<value>[^\n]{1,100}?) "
        r"\(choose from (?P<choices>[^\n)]{1,600})",
        "The engine refuses {value} for {flag}; it takes {choices}.",
        "Set one of these values in the field of spec.engine, or in spec.engine.extraArgs.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "flag-value",
        "FlagValueRefused",
        r"error: argument (?P<flag>[^:\n]{1,80}): (?P<what>[^\n]{1,400})",
        "The engine refuses the value of {flag}: {what}.",
        "Correct it in the field of spec.engine, or in spec.engine.extraArgs.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "tool-parser",
        "FlagValueRefused",
        r"invalid tool call parser: (?P<value>[^\s']{1,80})",
        "This engine has no tool call parser {value}.",
        "Correct spec.engine.toolCallParser.",
        CONFIGURATION_EXIT,
        ((r"invalid tool call parser: [^\n]{1,100}?\(chose from \{ ?(?P<known>[^\n}]{1,500})", "It has {known}."),),
    ),
    Signature(
        "reasoning-parser",
        "FlagValueRefused",
        r"(?:invalid reasoning parser: |Reasoning parser ')(?P<value>[^\s']{1,80})",
        "This engine has no reasoning parser {value}.",
        "Correct spec.engine.reasoningParser.",
        CONFIGURATION_EXIT,
        (
            (
                r"(?:Available parsers: |invalid reasoning parser: [^\n]{1,100}?\(chose from \{ ?)"
                r"(?P<known>[^\n}\"]{1,500})",
                "It has {known}.",
            ),
        ),
    ),
    Signature(
        "model-length",
        "FlagValueRefused",
        r"max_model_len \((?P<value>\d{1,12})\) is greater than the derived max_model_len "
        r"\((?P<derived>[^)\n]{0,80}?\d)(?:\.0)? or ",
        "maxModelLen {value} is more than the checkpoint allows ({derived}).",
        "Lower spec.engine.maxModelLen to what the checkpoint allows.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "tensor-parallel",
        "FlagValueRefused",
        r"attention heads \((?P<heads>\d{1,6})\) must be divisible by tensor parallel size \((?P<size>\d{1,6})\)",
        "The model's {heads} attention heads cannot be divided among {size} GPUs.",
        "Set spec.gpu.count to a divisor of the number of heads.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "kv-cache-dtype",
        "FlagValueRefused",
        r"--kv-cache-dtype (?P<value>\S{1,40}) is not supported (?P<where>by [^\n]{1,200}?)(?:\.|\n|$)",
        "The KV cache type {value} is not supported {where}.",
        "Set spec.engine.kvCacheDtype to auto.",
        CONFIGURATION_EXIT,
    ),
)

# Any other setting that vLLM's own checks refuse: last, for the exact ones arrive in the same wrapping.
CONFIGURATION = (
    Signature(
        "configuration",
        "ConfigurationRefused",
        r"validation errors? for (?P<config>\w{1,60})\n(?:(?:[^\n]{0,80}[ )])?(?P<field>[\w.]{1,80})\n)?"
        r"[^\n]{0,120}?(?:Value error, |(?=Input should be ))(?P<what>[^\n]{1,400}?)\.?(?: \[type=|\n|$)",
        "The engine refuses its configuration ({config} {field}): {what}.",
        "Correct the field of spec.engine that this is about, or spec.engine.extraArgs.",
        CONFIGURATION_EXIT,
    ),
)
