"""`falcon-quantize hub`: a repository of the Hugging Face Hub, downloaded into its cache and quantized from there."""

# mypy: disable-error-code="import-not-found"
# (huggingface_hub is only in the image)

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from falcon_quantize.refusal import CONFIGURATION_EXIT, Refusal

_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
_REPORT = "quantization-report.json"
_LAST_WORDS = Path("/dev/termination-log")
_GIB = 1 << 30
# The result has a third of the source's bytes.
_RESULT_SHARE = 0.35


class Retry(Exception):
    """Another try may help."""


def main(arguments: Sequence[str]) -> int:
    """Download and quantize; return 0, 1 where another try may help, 2 where something has to be changed first."""
    options = _parser().parse_args(arguments)
    try:
        if _is_made(options):
            print(f"{options.out} is whole already: nothing is downloaded.")
            return 0
        source = _download(options.repository, options.revision, options.out)
    except Refusal as error:
        return _end(str(error), CONFIGURATION_EXIT)
    except Retry as error:
        return _end(str(error), 1)
    from falcon_quantize import cli

    given = [str(source), "--out", str(options.out), "--device", options.device, "--kv-scales", options.kv_scales]
    return cli.main(given)


def _is_made(options: argparse.Namespace) -> bool:
    """Whether the result says that it is of this source, with these scales: then the Hub is not even asked."""
    try:
        report = json.loads((options.out / _REPORT).read_text())
    except (OSError, ValueError):
        return False
    if not isinstance(report, dict):
        return False
    snapshot = f"models--{options.repository.replace('/', '--')}/snapshots/{options.revision}"
    return str(report.get("source", "")).endswith(snapshot) and report.get("kvScales") == options.kv_scales


def _download(repository: str, revision: str, out: Path) -> Path:
    """The directory of the snapshot; what is in the cache already is not downloaded again."""
    os.environ["HF_HUB_OFFLINE"] = "0"  # to download is what was asked for, whatever the image is set to
    if not sys.stderr.isatty():
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    import huggingface_hub as hub
    from huggingface_hub import errors

    where = f"{repository} at revision {revision}"
    token = "give a token that may read it (HF_TOKEN; in a resource tokenSecretRef)"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        missing = _missing(hub, repository, revision)
        _check_space(missing, out)
        print(f"Downloading {missing / _GIB:.2f} GiB of {where}.", file=sys.stderr)
        snapshot = hub.snapshot_download(repository, revision=revision, allow_patterns=list(_FILES))
    except Refusal:
        raise
    except errors.GatedRepoError:
        raise Refusal(f"The Hub does not hand out {where}: accept its terms there, and {token}.") from None
    except errors.RevisionNotFoundError:
        raise Refusal(f"The Hub has no {where}: correct the revision.") from None
    except errors.RepositoryNotFoundError:
        raise Refusal(f"The Hub has no {where}, or it is private: correct the name, or {token}.") from None
    except errors.HfHubHTTPError as error:
        code = getattr(getattr(error, "response", None), "status_code", None)
        if code in (401, 403):
            raise Refusal(f"The Hub refuses {where} ({code}): {token}.") from None
        raise Retry(f"The Hub does not hand out {where} ({code or error}): try again later.") from None
    except OSError as error:
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise Refusal(
                f"{error.filename or out} cannot be written: {error.strerror}. Use a volume that can."
            ) from None
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Refusal(f"There is no space left for {where}: enlarge the volume, or free some of it.") from None
        raise Retry(f"{where} cannot be downloaded: {_one_line(error)}. Try again later.") from None
    except Exception as error:  # of the transport below, which differs between versions of the client
        raise Retry(f"The Hub cannot be reached for {where}: {_one_line(error)}. Try again later.") from None
    return Path(snapshot)


def _missing(hub: Any, repository: str, revision: str) -> int:
    """Bytes that are to be downloaded."""
    info = hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
    files = [file for file in info.siblings or () if any(fnmatch(file.rfilename, name) for name in _FILES)]
    if not any(file.rfilename.endswith(".safetensors") for file in files):
        raise Refusal(f"{repository} at revision {revision} has no safetensors files: name a repository that has.")
    cached = [
        f for f in files if isinstance(hub.try_to_load_from_cache(repository, f.rfilename, revision=revision), str)
    ]
    return sum(file.size or 0 for file in files if file not in cached)


def _check_space(missing: int, out: Path) -> None:
    free, needed = shutil.disk_usage(out.parent).free, missing + int(missing * _RESULT_SHARE)
    if needed > free:
        raise Refusal(
            f"{out.parent} has {free / _GIB:.1f} GiB free, and {needed / _GIB:.1f} are needed for what is downloaded "
            "and what is made of it: enlarge the volume, or free some of it."
        )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")[:500] or type(error).__name__


def _end(sentence: str, status: int) -> int:
    print(f"falcon-quantize: {sentence}", file=sys.stderr)
    if _LAST_WORDS.is_file() and os.access(_LAST_WORDS, os.W_OK):
        _LAST_WORDS.write_text(sentence)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("falcon-quantize hub", description=__doc__)
    parser.add_argument("repository", metavar="OWNER/NAME", help="the repository on the Hub")
    parser.add_argument("--revision", required=True, metavar="COMMIT", help="its commit")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the directory to make")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute [auto]")
    parser.add_argument(
        "--kv-scales", choices=("cast", "calibrated"), default="cast", help="of the FP8 KV cache [cast]"
    )
    return parser
