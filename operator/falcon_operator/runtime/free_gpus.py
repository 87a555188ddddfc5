"""Looks for a free GPU, once for each change of pods: a list of one node's pods after the other, none is kept."""

from __future__ import annotations

import logging

from falcon_operator.decide.free_gpus import Free, Wanted, left, requested
from falcon_operator.kube.client import KubeClient, Object
from falcon_operator.kube.errors import ApiError, Forbidden

log = logging.getLogger(__name__)


class FreeGpus:
    """Asks the API server what the pods of nodes have asked for."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def look(self, wanted: Wanted) -> Free:
        """The first node with enough; where it cannot be told, the reason why."""

        def asks(pod: Object) -> Object:
            return {"asks": requested(pod, wanted.resource)}

        try:
            for node, _ in wanted.nodes:
                pods = await self._client.pods_on(node, asks)
                if left(wanted, node, (pod["asks"] for pod in pods)) >= wanted.count:
                    return Free(node)
        except Forbidden:
            return Free(error="the operator may not list the pods of all namespaces, so it cannot tell whether a GPU "
                              "is free")  # fmt: skip
        except ApiError as error:
            log.warning("cannot look for a free GPU, so pods are replaced in place: %s", error)
            return Free(error="it could not be read whether a GPU is free")
        return Free()
