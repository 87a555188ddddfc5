"""What huggingface_hub and transformers say where a model cannot be fetched."""

from falcon_engine.signatures import CONFIGURATION_EXIT, Signature

_SOURCE = "spec.model.source.huggingFace"
_URL = r"(?:[Ff]or url:? |at: |requesting \w{3,6} )'?(?P<url>https?://[^\s']{1,300})"

HUB = (
    Signature(
        "hub-gated",
        "HubForbidden",
        r"Cannot access gated repo|access a gated repo\b|GatedRepoError",
        "The model is gated, and the token's owner has not been let in.",
        f"Ask for access on the model's page on the hub, and name a token of that account in {_SOURCE}.tokenSecretRef.",
        CONFIGURATION_EXIT,
        ((r"[Ff]or url:? (?P<url>https?://\S{1,300}?)\.?\s", "The hub refused {url}."),),
    ),
    Signature(
        "hub-unauthorized",
        "HubUnauthorized",
        r"401 Client Error|Client error '401 |401 Unauthorized",
        "The Hugging Face Hub does not know the token, or none was given (401).",
        f"Name a Secret with a valid token in {_SOURCE}.tokenSecretRef; a repository that does not exist is answered "
        f"so too, so check {_SOURCE}.repository.",
        CONFIGURATION_EXIT,
        ((_URL, "It was asked for {url}."),),
    ),
    Signature(
        "hub-forbidden",
        "HubForbidden",
        r"403 Forbidden|403 Client Error",
        "The token may not read this model on the Hugging Face Hub (403).",
        f"Give the token of {_SOURCE}.tokenSecretRef the right to read this repository.",
        CONFIGURATION_EXIT,
        (
            (r"403 Forbidden: (?P<what>[^\n]{1,300}?)\.?\n", "It says: {what}."),
            (_URL, "It was asked for {url}."),
        ),
    ),
    Signature(
        "hub-rate-limited",
        "HubRateLimited",
        r"429 Too Many Requests|429 Client Error|Client error '429 ",
        "The Hugging Face Hub answers no more requests for now: too many came from this address or token (429).",
        f"It is tried again by itself. Keep the files in {_SOURCE}.cache so that they are fetched once, and name a "
        "token, which has a limit of its own.",
        more=((r"Retry after (?P<wait>\d{1,6}) seconds", "It asks to wait {wait} s."),),
    ),
    Signature(
        "hub-revision",
        "CheckpointNotFound",
        r"RevisionNotFoundError|Revision Not Found|is not a valid git identifier",
        "The hub has the repository, but not its revision.",
        f"Correct {_SOURCE}.revision: a branch, a tag or a commit.",
        CONFIGURATION_EXIT,
        (
            (r"(?P<revision>\S{1,200}) is not a valid git identifier", "It was asked for {revision}."),
            (r"Revision Not Found for url: (?P<url>https?://\S{1,300}?)\.\s", "It was asked for {url}."),
        ),
    ),
    Signature(
        "hub-repository",
        "CheckpointNotFound",
        r"RepositoryNotFoundError|Repository Not Found|is not a valid model identifier",
        "The Hugging Face Hub has no such repository, or hides it from this token.",
        f"Correct {_SOURCE}.repository; a private one needs {_SOURCE}.tokenSecretRef.",
        CONFIGURATION_EXIT,
        (
            (r"Repository Not Found for url: (?P<url>https?://\S{1,300}?)\.\s", "It was asked for {url}."),
            (r"(?P<name>\S{1,200}) is not a local folder and is not a valid model", "It was asked for {name}."),
        ),
    ),
    Signature(
        "hub-entry",
        "CheckpointUnusable",
        r"EntryNotFoundError: 404|Entry Not Found for url: |does not appear to have a file named ",
        "The repository lacks a file that the engine needs.",
        f"Name a repository with a complete checkpoint in {_SOURCE}.repository, or the right revision.",
        CONFIGURATION_EXIT,
        (
            (r"Entry Not Found for url: (?P<url>https?://\S{1,300}?)\.\s", "It was asked for {url}."),
            (r"does not appear to have a file named (?P<file>\S{1,100}?)\.?\s", "The file is {file}."),
        ),
    ),
    Signature(
        "hub-offline",
        "CheckpointNotFound",
        r"OfflineModeIsEnabled|offline mode is enabled|outgoing traffic has been disabled",
        "The engine may not ask the hub (HF_HUB_OFFLINE is 1), and its files are not in the cache.",
        f"Remove HF_HUB_OFFLINE from spec.engine.env, or use a {_SOURCE}.cache that holds the model.",
        CONFIGURATION_EXIT,
    ),
    Signature(
        "hub-unreachable",
        "HubUnreachable",
        r"LocalEntryNotFoundError|couldn't connect to '?https?://|Max retries exceeded with url|"
        r"(?:ConnectError|ConnectTimeout|ReadTimeout|NameResolutionError|MaxRetryError)\b|"
        r"Network is unreachable|No route to host|Name or service not known|Temporary failure in name resolution",
        "The Hugging Face Hub cannot be reached from the pod.",
        "It is tried again by itself. Check DNS, proxy (HTTPS_PROXY in spec.engine.env) and network policies; without "
        "a way out use spec.model.source.volume or spec.model.source.oci.",
        more=(
            (
                r"(?P<what>(?:\[Errno -?\d{1,3}\] )?(?:Name or service not known|Temporary failure in name resolution|"
                r"Network is unreachable|No route to host|Connection refused|Connection timed out|timed out))",
                "The system says: {what}.",
            ),
            (r"Server error '(?P<what>5\d\d [^'\n]{1,40})'", "The hub answers {what}."),
        ),
    ),
)
