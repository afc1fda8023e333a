#!/usr/bin/env bash
# The study behind the README's result table: DATA is a folder of stories, OUT an empty one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$1 out=$2
cd "$out"
squen-sweep run --study "$here/three_losses.toml" --trials 24 --workers 1 --data "$data"
squen-sweep verdict --study three_losses --workers 1 --json > "$here/three_losses.json"
squen-sweep prune --study three_losses --what-if
