{{- define "vidseek.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-vidseek" .Release.Name) (contains "vidseek" .Release.Name) -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- /* Of a component: (list . "api"). */ -}}
{{- define "vidseek.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: vidseek
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "vidseek.labels" -}}
{{- $root := index . 0 -}}
{{ include "vidseek.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end }}

{{- define "vidseek.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "vidseek.claim" -}}
{{ .Values.archive.existingClaim | default (printf "%s-archive" (include "vidseek.fullname" .)) }}
{{- end }}

{{- /* What every pod has: (list . values-of-the-component). Service links are off: they would put addresses into variables
of our own names, VIDSEEK_PAGE_PORT for one. */ -}}
{{- define "vidseek.pod" -}}
{{- $root := index . 0 -}}
{{- $own := index . 1 -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "vidseek.container" -}}
{{- $root := index . 0 -}}
{{- $own := index . 1 -}}
image: {{ include "vidseek.image" $root | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
resources: {{- toYaml $own.resources | nindent 2 }}
{{- end }}

{{- /* A label that only pods with the archive have; a disk that one node mounts keeps them together. */ -}}
{{- define "vidseek.archiveLabel" -}}
vidseek/archive: {{ include "vidseek.claim" . | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "vidseek.archiveAffinity" -}}
{{- if not (eq .Values.archive.accessMode "ReadWriteMany") }}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{- include "vidseek.archiveLabel" . | nindent 12 }}
{{- end }}
{{- end }}

{{- define "vidseek.archiveVolumes" -}}
volumes:
  - name: tmp
    emptyDir: {}
  - name: archive
    persistentVolumeClaim:
      claimName: {{ include "vidseek.claim" . }}
{{- with .Values.videos }}
  - name: videos
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}

{{- define "vidseek.archiveMounts" -}}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: archive, mountPath: /archive}
{{- if .Values.videos }}
  - {name: videos, mountPath: /videos, readOnly: true}
{{- end }}
{{- end }}

{{- /* The keys, and where the collections are. */ -}}
{{- define "vidseek.keyEnv" -}}
- name: VIDSEEK_API_KEY
  valueFrom: {secretKeyRef: {name: {{ .Values.auth.secret }}, key: api-key}}
{{- end }}

{{- define "vidseek.indexEnv" -}}
{{- $own := ternary .Release.Name (printf "%s-qdrant" .Release.Name) (contains "qdrant" .Release.Name) -}}
{{- $url := .Values.index.qdrantUrl | default (ternary (printf "http://%s:6333" $own) "" .Values.qdrant.enabled) -}}
{{- with $url }}
- name: QDRANT_URL
  value: {{ . | quote }}
{{- end }}
{{- if .Values.index.qdrantKey.secret }}
- name: QDRANT_API_KEY
  valueFrom: {secretKeyRef: {name: {{ .Values.index.qdrantKey.secret }}, key: {{ .Values.index.qdrantKey.key }}}}
{{- end }}
{{- end }}
