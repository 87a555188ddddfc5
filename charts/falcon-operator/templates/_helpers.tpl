{{- define "falcon-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "falcon-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := include "falcon-operator.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* A name with a suffix, still within 63 characters. */}}
{{- define "falcon-operator.suffixed" -}}
{{- $suffix := last . }}
{{- printf "%s-%s" (include "falcon-operator.fullname" (first .) | trunc (sub 62 (len $suffix) | int) | trimSuffix "-") $suffix }}
{{- end }}

{{- define "falcon-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "falcon-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* managed-by is Helm here: the operator watches objects whose managed-by is falcon-operator. */}}
{{- define "falcon-operator.labels" -}}
{{ include "falcon-operator.commonLabels" . }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "falcon-operator.commonLabels" -}}
app.kubernetes.io/name: {{ include "falcon-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "falcon-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "falcon-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "falcon-operator.image" -}}
{{- $image := .Values.image }}
{{- $repository := $image.repository }}
{{- if $image.registry }}
{{- $repository = printf "%s/%s" $image.registry $image.repository }}
{{- end }}
{{- if $image.digest }}
{{- printf "%s@%s" $repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default .Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{/* The restricted Pod Security Standard, for the operator's pod and the test's. */}}
{{- define "falcon-operator.podSecurityContext" -}}
runAsNonRoot: true
{{- if not (kindIs "invalid" .Values.runAsUser) }}
runAsUser: {{ int .Values.runAsUser }}
{{- end }}
{{- if not (kindIs "invalid" .Values.runAsGroup) }}
runAsGroup: {{ int .Values.runAsGroup }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "falcon-operator.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "falcon-operator.renderServiceMonitor" -}}
{{- $missing := not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1/ServiceMonitor") }}
{{- if and .Values.serviceMonitor.enabled .Values.service.enabled (or (eq .Values.serviceMonitor.renderMode "Always") (not $missing)) }}true{{ end }}
{{- end }}

{{/* Names outside the release's namespace carry it, so that two releases of one name do not meet. */}}
{{- define "falcon-operator.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "falcon-operator.fullname" .) }}
{{- end }}
