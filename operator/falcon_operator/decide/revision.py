"""Which pod template runs: the one that was rendered once for this spec, or a new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from falcon_operator.api import names
from falcon_operator.api.lifecycle import UpdatePolicy
from falcon_operator.api.spec import Spec
from falcon_operator.decide.pods import Pod
from falcon_operator.decide.types import ObjectRef, Renderer
from falcon_operator.desired import pod as pod_builder
from falcon_operator.desired.canonical import differing_paths
from falcon_operator.desired.metadata import Owner
from falcon_operator.desired.revision import controller_revision, spec_hash

KEPT_REVISIONS = 5
_NAMED_PATHS = 8


@dataclass(frozen=True)
class Revision:
    """One pod template and where it comes from."""

    revision: str
    template: dict[str, Any]
    renderer: str
    spec: str
    number: int = 0  # 0: not recorded
    uid: str = ""

    @property
    def annotations(self) -> dict[str, str]:
        """What the Deployment and the ControllerRevision say of it."""
        return {
            names.ANNOTATION_REVISION: self.revision,
            names.ANNOTATION_RENDERER: self.renderer,
            names.ANNOTATION_SPEC: self.spec,
        }

    @property
    def launcher(self) -> str | None:
        """The launcher's ConfigMap that its pods mount."""
        for volume in (self.template.get("spec") or {}).get("volumes") or []:
            if volume.get("name") == "launcher":
                name: str | None = (volume.get("configMap") or {}).get("name")
                return name
        return None


@dataclass(frozen=True)
class Choice:
    """The revision to run, and what today's renderer would make of the same spec."""

    target: Revision
    fresh: Revision

    @property
    def up_to_date(self) -> bool:
        """Whether an adoption would change nothing."""
        return self.target.revision == self.fresh.revision

    @property
    def adoption(self) -> list[str]:
        """The fields of the template that an adoption would change."""
        if self.up_to_date:
            return []
        found = differing_paths(_unlabelled(self.target.template), _unlabelled(self.fresh.template))
        return found[:_NAMED_PATHS] + (["…"] if len(found) > _NAMED_PATHS else [])


def choose(
    spec: Spec,
    owner: Owner,
    renderer: Renderer,
    live: Revision | None,
    recorded: Sequence[Revision],
    pods: Sequence[Pod],
    launchers: frozenset[str],
) -> Choice:
    """A template that has served is used unchanged for as long as its spec is asked for, whoever renders now."""
    fresh = _render(spec, owner, renderer)
    if spec.update_policy is UpdatePolicy.AUTO:
        return Choice(fresh, fresh)
    by_revision = {r.revision: r for r in recorded}
    if live is not None and live.spec == fresh.spec:
        mine = [p for p in pods if p.revision == live.revision]
        known = by_revision.get(live.revision)
        runnable = live.launcher in launchers or live.launcher == fresh.launcher
        if known is not None and (runnable or any(p.ready for p in mine)):
            return Choice(known, fresh)
        if known is None and any(map(_is_sound, mine)):
            return Choice(fresh if live.revision == fresh.revision else live, fresh)
        return Choice(fresh, fresh)
    for known in sorted(recorded, key=lambda r: r.number, reverse=True):
        if known.spec == fresh.spec and (known.launcher in launchers or known.launcher == fresh.launcher):
            return Choice(known, fresh)
    return Choice(fresh, fresh)


def live_revision(deployment: Mapping[str, Any] | None) -> Revision | None:
    """The revision that the Deployment holds."""
    if deployment is None:
        return None
    annotations = deployment["metadata"].get("annotations") or {}
    template = dict((deployment.get("spec") or {}).get("template") or {})
    revision = annotations.get(names.ANNOTATION_REVISION)
    if not revision or not template:
        return None
    template["metadata"] = {k: v for k, v in template.get("metadata", {}).items() if k != "creationTimestamp"}
    return Revision(
        revision=revision,
        template=template,
        renderer=annotations.get(names.ANNOTATION_RENDERER, ""),
        spec=annotations.get(names.ANNOTATION_SPEC, ""),
    )


def recorded_revisions(owner: Owner, objects: Sequence[Mapping[str, Any]]) -> list[Revision]:
    """The revisions that are on record, oldest first."""
    found = []
    for item in objects:
        metadata = item["metadata"]
        annotations = metadata.get("annotations") or {}
        template = (item.get("data") or {}).get("template")
        revision = annotations.get(names.ANNOTATION_REVISION)
        if owner.owns(item) and revision and template:
            found.append(
                Revision(
                    revision=revision,
                    template=template,
                    renderer=annotations.get(names.ANNOTATION_RENDERER, ""),
                    spec=annotations.get(names.ANNOTATION_SPEC, ""),
                    number=int(item.get("revision") or 0),
                    uid=metadata.get("uid", ""),
                )
            )
    return sorted(found, key=lambda r: (r.number, r.revision))


def records(
    owner: Owner, candidates: Sequence[Revision | None], recorded: Sequence[Revision], pods: Sequence[Pod]
) -> list[dict[str, Any]]:
    """The ControllerRevisions to be written: of revisions that have served and are not on record yet."""
    known = {r.revision for r in recorded}
    number = max((r.number for r in recorded), default=0)
    found = []
    for candidate in candidates:
        if candidate is None or candidate.revision in known:
            continue
        if any(p.ready and p.revision == candidate.revision for p in pods):
            number += 1
            known.add(candidate.revision)
            found.append(
                controller_revision(owner, candidate.revision, number, candidate.template, candidate.annotations)
            )
    return found


def superfluous(owner: Owner, recorded: Sequence[Revision], wanted: set[str]) -> list[ObjectRef]:
    """The oldest records beyond the ones that are kept; never one that still runs."""
    excess = len(recorded) - KEPT_REVISIONS
    idle = [r for r in recorded if r.revision not in wanted and r.uid]
    return [
        ObjectRef("apps/v1", "ControllerRevision", owner.namespace, names.revision_name(owner.name, r.revision), r.uid)
        for r in idle[: max(excess, 0)]
    ]


def _render(spec: Spec, owner: Owner, renderer: Renderer) -> Revision:
    template = pod_builder.pod_template(spec, owner.name, renderer)
    revision = pod_builder.revision_of(template)
    return Revision(
        revision=revision,
        template=pod_builder.labelled(template, owner.name, owner.uid, revision),
        renderer=renderer.version,
        spec=spec_hash(spec),
    )


def _is_sound(pod: Pod) -> bool:
    """Serving, or on its way there without having failed: an operator that was upgraded meanwhile lets it go on."""
    return pod.ready or (pod.active and pod.restarts == 0 and pod.state("running") is not None)


def _unlabelled(template: Mapping[str, Any]) -> dict[str, Any]:
    metadata = dict(template.get("metadata") or {})
    metadata["labels"] = {k: v for k, v in (metadata.get("labels") or {}).items() if k != names.LABEL_REVISION}
    return {**template, "metadata": metadata}
