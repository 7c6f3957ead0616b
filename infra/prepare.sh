#!/bin/sh
# Makes what compose.yaml mounts and nobody else makes: keys in infra/secrets, folders that a container writes in. What is
# there stays. The folder of the keys is closed; the files in it are not, since containers read them as other users.
set -eu
cd "$(dirname "$0")"
mkdir -p ../index ../feedback ../models ../reports ../data/decisions
mkdir -p ../.vidseek/base ../.vidseek/downloads ../.vidseek/demo ../.vidseek/queries ../.vidseek/thumbnails ../.vidseek/jobs
mkdir -p ../.vidseek/saved ../.vidseek/relevance
mkdir -p secrets && chmod 700 secrets && cd secrets

key() { openssl rand -hex 32; }
make() {  # a name, and the text of the file
    [ -s "$1" ] || { printf '%s\n' "$2" > "$1.new" && chmod 644 "$1.new" && mv "$1.new" "$1"; }
}

make vidseek_api_key "$(key)"
make vidseek_admin_key "$(key)"
make grafana_password "$(key)"
make postgres_password "$(key)"
make qdrant_api_key "$(key)"
make qdrant.yaml "service: {api_key: $(cat qdrant_api_key)}"
make objects_key "$(key)"
make objects.json "{\"identities\": [{\"name\": \"mlflow\", \"actions\": [\"Admin\", \"Read\", \"Write\", \"List\", \"Tagging\"],
 \"credentials\": [{\"accessKey\": \"mlflow\", \"secretKey\": \"$(cat objects_key)\"}]}]}"
make objects.ini "[default]
aws_access_key_id = mlflow
aws_secret_access_key = $(cat objects_key)"
