#!/usr/bin/env bash
# The study behind the README's picture: DATA is a folder of stories, OUT an empty one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$1 out=$2
cd "$out"
one_core="taskset -c 1" # one trial at a time, on one thread: the order of trials is then always the same
$one_core squen-sweep run --study "$here/three_losses.toml" --trials 24 --workers 1 --data "$data"
# Five seeds leave squentropy open, and so do nine: the last interval is that of a third analysis.
$one_core squen-sweep verdict --study three_losses --workers 1
$one_core squen-sweep verdict --study three_losses --workers 1 --seeds 9
$one_core squen-sweep verdict --study three_losses --workers 1 --seeds 29 --json > "$here/three_losses.json"
