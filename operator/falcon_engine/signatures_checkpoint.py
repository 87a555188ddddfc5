"""What vLLM, transformers and safetensors say of a checkpoint that they cannot use."""

from falcon_engine.signatures import CONFIGURATION_EXIT, Signature

CHECKPOINT = (
    Signature(
        "quantization-mismatch",
        "QuantizationRefused",
        r"Quantization method specified in the model config \((?P<config>[^)\n]{0,60})\) does not match "
        r"[^\n]{0,120}\((?P<flag>[^)\n]{0,60})\)",
        "The checkpoint calls its quantization {config}, the engine was told {flag}.",
        "Leave spec.model.checkpoint at Repair, or correct quantization_config in the checkpoint's config.json: "
        "quant_method must be modelopt.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "quantization-algorithm",
        "QuantizationRefused",
        r"Unknown ModelOpt quant algo: (?P<algorithm>\S{1,60})",
        "This engine does not know the checkpoint's ModelOpt algorithm {algorithm}.",
        "Use an image with vLLM 0.22 or newer, and keep quantization_config in the checkpoint's config.json: "
        "hf_quant_config.json alone is read by a shorter list.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "quantization-method",
        "QuantizationRefused",
        r"Unknown quantization method: (?P<method>[^\s.]{1,60})",
        "This engine does not know the checkpoint's quantization method {method}.",
        "Leave spec.model.checkpoint at Repair, correct quantization_config in the checkpoint's config.json "
        "(quant_method modelopt, quant_algo NVFP4 or W4A16_NVFP4), or use an image with a newer vLLM.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "quantization-absent",
        "QuantizationRefused",
        r"Cannot find the config file for (?P<method>\w{1,40})",
        "The engine was told {method}, but the checkpoint is not quantized.",
        "Remove --quantization from spec.engine.extraArgs, or serve the NVFP4 checkpoint.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "quantization-gpu",
        "GPUNotSupported",
        r"quantization method (?P<method>\S{1,40}) is not supported for the current GPU\. Minimum capability: "
        r"(?P<least>\d{1,4})\. Current capability: (?P<found>\d{1,4})",
        "The GPU has compute capability {found} (in tenths), and {method} needs {least}.",
        "Let spec.gpu.products, spec.gpu.fp4 or spec.scheduling choose newer GPUs.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "weight-scale",
        "WeightsMismatch",
        r"weight_scale\b[^\n]{0,160} was never loaded",
        "The engine expects NVFP4 weights where the checkpoint has none.",
        "The checkpoint's exclude list does not name its BF16 layers as vLLM does; patterns such as *in_proj* match, "
        "and spec.model.checkpoint: Repair writes them.",
        CONFIGURATION_EXIT,
        ((r"weight_scale for layer '?(?P<layer>[^'\s]{1,120})'? was never", "The layer is {layer}."),),
    ),
    Signature(
        "weight-shape",
        "WeightsMismatch",
        r"(?:Attempted to load weight|Tried to load weights of size) \(?(?P<stored>torch\.Size\(\[[\d, ]{0,60}\]\))"
        r"[^\n]{0,40}?parameter (?:of size )?\(?(?P<wanted>torch\.Size\(\[[\d, ]{0,60}\]\))",
        "A weight has shape {stored} in the checkpoint, and the model wants {wanted}.",
        "config.json and weights are of different models or quantizations: copy the checkpoint again, whole.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "weight-shape-parameter",
        "WeightsMismatch",
        r"assert [\w.]{1,60}\.shape(?:\[\w{1,30}\])? == [\w.]{1,60}",
        "A weight has another shape in the checkpoint than the model wants.",
        "config.json and weights are of different models or quantizations: copy the checkpoint again, whole.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "weight-packed",
        "WeightsMismatch",
        r"start \(\d{1,12}\) \+ length \((?P<wanted>\d{1,12})\) exceeds dimension size \((?P<stored>\d{1,12})\)",
        "A weight of the checkpoint has {stored} rows or columns where the model wants {wanted}.",
        "Half of what is wanted is a weight packed as NVFP4 in a layer that quantization_config in the checkpoint's "
        "config.json excludes: take that layer off its exclude list, or copy the checkpoint again, whole.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "weight-name",
        "WeightsMismatch",
        r"There is no module or parameter named '(?P<name>[^'\n]{1,200})' in (?P<module>\w{1,80})",
        "The checkpoint has a weight {name} for which {module} has no place in this engine.",
        "An NVFP4 checkpoint of Falcon-H1 needs vLLM 0.20 or newer: set spec.image.reference, or serve another one.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "weight-missing",
        "WeightsMismatch",
        r"Following weights were not initialized from checkpoint: \{?(?P<names>[^\n}]{1,200})",
        "The checkpoint lacks weights of the model: {names}.",
        "Copy the checkpoint again, all files of it.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "weights-none",
        "CheckpointUnusable",
        r"Cannot find any model weights with `(?P<path>[^`\n]{1,200})`",
        "There are no weight files in {path}.",
        "Copy the checkpoint again, all *.safetensors of it, or correct spec.model.source.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "weights-damaged",
        "CheckpointUnusable",
        r"SafetensorError: (?P<what>[^\n]{1,300})|(?P<old>HeaderTooLarge|MetadataIncompleteBuffer|"
        r"InvalidHeaderDeserialization)",
        "A weight file is damaged: {what}{old}.",
        "Copy the checkpoint again; a small file may be a Git LFS pointer or a web page instead of the weights.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "remote-code",
        "RemoteCodeRefused",
        r"contains custom code which must be executed|references custom code contained in|"
        r"`--trust-remote-code` flag in the CLI|requires you to execute the (?:configuration|tokenizer) file",
        "The checkpoint wants to run code of its own, which this engine does not allow.",
        "Falcon-H1R needs none: remove auto_map from the checkpoint's config.json, or ask the administrator for "
        "operator.allowTrustRemoteCode.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "architecture-transformers",
        "ArchitectureUnknown",
        r"has model type `(?P<type>[^`\n]{1,80})` but Transformers does not recognize this architecture",
        "The image's transformers does not know the model type {type}.",
        "Use an image with a newer vLLM in spec.image.reference, or correct model_type in config.json.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "architecture",
        "ArchitectureUnknown",
        r"Model architectures \[(?P<what>[^]\n]{0,200})\] (?:are not supported|failed to be inspected)",
        "This engine does not know the model's architecture {what}.",
        "Use an image with a newer vLLM in spec.image.reference, or serve Falcon-H1R.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "tokenizer",
        "TokenizerUnusable",
        r"Can't load tokenizer for '(?P<path>[^'\n]{1,200})'|Couldn't instantiate the backend tokenizer|"
        r"Failed to load the tokenizer",
        "The checkpoint's tokenizer cannot be loaded.",
        "Copy tokenizer.json and tokenizer_config.json beside the weights, or name a tokenizer with --tokenizer in "
        "spec.engine.extraArgs.",
        CONFIGURATION_EXIT,
        ((r"Can't load tokenizer for '(?P<path>[^'\n]{1,200})'", "It was looked for in {path}."),),
    ),
    Signature(
        "model-config",
        "CheckpointUnusable",
        r"It looks like the config file at '(?P<path>[^'{\n]{1,200})' is not a valid JSON file",
        "{path} is not JSON.",
        "Copy the checkpoint again.",
        CONFIGURATION_EXIT,
    ),
)
