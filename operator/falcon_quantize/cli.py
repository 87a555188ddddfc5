"""`falcon-quantize`: the command line."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from falcon_quantize import plan, report, run
from falcon_quantize.plan import Settings
from falcon_quantize.refusal import CONFIGURATION_EXIT, Refusal
from falcon_quantize.source import open_source
from falcon_quantize.work import Busy

_GO_ON = "The same command goes on from what is whole."
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
# The kubelet shows what is written there as the reason why a container ended.
_LAST_WORDS = Path("/dev/termination-log")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 where another try may help, 2 where something has to be changed first."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["hub"]:
        return int(import_module("falcon_quantize.hub").main(given[1:]))
    options = _parser().parse_args(given)
    try:
        if options.plan:
            _show_plan(options)
        else:
            _quantize(options)
    except Refusal as error:
        return _end(str(error), CONFIGURATION_EXIT)
    except Busy as error:
        return _end(str(error), 1)
    except ModuleNotFoundError as error:
        return _end(f"{error.name} is not installed. Use the quantizer's image, or the extra `quantize`.", 2)
    except KeyboardInterrupt:
        return _end(f"Interrupted. {_GO_ON}", 130)
    except OSError as error:
        return _end(f"{error.filename or options.out}: {error.strerror or error}. {_GO_ON}", 1)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "out of memory" not in str(error):
            raise
        return _end(f"Out of memory: {error}. Give it more, or use --device cpu. {_GO_ON}", 1)
    return 0


def _quantize(options: argparse.Namespace) -> None:
    request = run.Request(options.source, _out(options), _settings(options), options.device, options.calibration_text)
    told = run.quantize(request)
    print(report.table(told) if told else f"{options.out} is whole already.")


def _show_plan(options: argparse.Namespace) -> None:
    planned = plan.make(open_source(options.source), _settings(options))
    print(
        f"{options.source}: {planned.source_bytes / report.GIB:.2f} GiB of weights become "
        f"{planned.weights_bytes / report.GIB:.2f} GiB in {len(planned.shards)} files.\n"
        f"It takes {planned.disk_bytes / report.GIB:.2f} GiB of disk "
        f"and at most {planned.memory_bytes / report.GIB:.1f} GiB of memory."
    )


def _out(options: argparse.Namespace) -> Path:
    if options.out is None:
        raise Refusal("--out is missing: name the directory to make. (--plan only says what it would take.)")
    return Path(os.path.abspath(options.out))


def _settings(options: argparse.Namespace) -> Settings:
    calibration = None
    if options.kv_scales == "calibrated":
        calibration = (_digest(options.calibration_text), options.calibration_prompts, options.calibration_tokens)
    elif options.calibration_text:
        raise Refusal("--calibration-text is for --kv-scales calibrated; with cast the scales are constant.")
    return Settings(options.kv_scales, options.keep_mamba, options.shard_size, calibration)


def _digest(text: Path | None) -> str:
    if text is None:
        return ""
    try:
        return hashlib.sha256(text.read_bytes()).hexdigest()
    except OSError as error:
        raise Refusal(f"--calibration-text {text} cannot be read: {error.strerror}.") from None


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+)([KMG]?)(i?B)?", text, re.IGNORECASE)
    if not found or not (size := int(found[1]) * _UNITS[found[2].upper()]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 512MiB")
    return size


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)


def _end(sentence: str, status: int) -> int:
    print(f"falcon-quantize: {sentence}", file=sys.stderr)
    if _LAST_WORDS.is_file() and os.access(_LAST_WORDS, os.W_OK):
        _LAST_WORDS.write_text(sentence)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "falcon-quantize",
        description="Make an NVFP4 checkpoint (W4A16, FP8 KV scales) of a Falcon-H1 in BF16. "
        "A run that was ended goes on when the same command is given again.",
    )
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="the directory of the checkpoint in BF16, FP16 or FP32"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the directory to make; it must not exist")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute [auto]")
    parser.add_argument(
        "--kv-scales", choices=("cast", "calibrated"), default="cast",
        help="of the FP8 KV cache: 1 for all, or by the greatest K and V of each layer on prompts [cast]",
    )  # fmt: skip
    parser.add_argument(
        "--calibration-text",
        type=Path,
        metavar="FILE",
        help="prompts to calibrate with, one a line [random tokens]",
    )
    parser.add_argument("--calibration-prompts", type=_positive, default=32, metavar="N", help="how many prompts [32]")
    parser.add_argument("--calibration-tokens", type=_positive, default=512, metavar="N", help="tokens of each [512]")
    parser.add_argument("--keep-mamba", action="store_true", help="leave the Mamba projections in BF16")
    parser.add_argument(
        "--shard-size", type=_size, default=Settings.shard_bytes, metavar="SIZE",
        help="files of the result hold this much at most; one is in memory at a time [512MiB]",
    )  # fmt: skip
    parser.add_argument("--plan", action="store_true", help="only say what it would take, from the headers")
    return parser
