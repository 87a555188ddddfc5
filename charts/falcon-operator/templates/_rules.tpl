{{/*
All that the operator may do. The table in docs/install.md says why, and a test compares the two.
Server-side apply needs `create` for a new object and `patch` for an old one. Nothing here reads Secrets,
runs commands in pods, reads their logs or hands out rights.
*/}}
{{- define "falcon-operator.rules" -}}
- apiGroups: [serving.falcon-operator.io]
  resources: [falconnvfp4deployments]
  verbs: [list, watch]
- apiGroups: [serving.falcon-operator.io]
  resources: [falconnvfp4deployments/status]
  verbs: [patch]
# Children carry blockOwnerDeletion. Clusters with the admission plugin OwnerReferencesPermissionEnforcement
# (OpenShift among them) let only those set it who may change the owner's finalizers. The operator sets none.
- apiGroups: [serving.falcon-operator.io]
  resources: [falconnvfp4deployments/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, persistentvolumeclaims]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [inference.networking.k8s.io]
  resources: [inferencepools]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]  # which pod a scale-down takes is an annotation on it
- apiGroups: [""]
  resources: [events]
  verbs: [get, create, patch]
{{- end }}

{{/* Nodes belong to no namespace: a ClusterRole of its own, also where the operator looks after some namespaces only. */}}
{{- define "falcon-operator.nodeRules" -}}
- apiGroups: [""]
  resources: [nodes]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [pods]  # whether a GPU is free, asked before pods are replaced
  verbs: [list]
{{- end }}
