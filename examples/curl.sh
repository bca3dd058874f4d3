#!/usr/bin/env bash
# A picture to a GLB with curl alone: curl.sh PICTURE ASSET.glb
set -euo pipefail
api() { curl -sS --fail-with-body -H "X-API-Key: $TRELLIS2_API_KEY" "$@"; }

job=$(api -F "image=@$1" -F seed=7 "$TRELLIS2_URL/jobs" | sed 's/^{"id":"\([^"]*\)".*/\1/')
api -N "$TRELLIS2_URL/jobs/$job/events" | grep '^event:' # until the job has ended, however it ended
api --json "{\"job\": \"$job\", \"simplify\": \"web\"}" -H 'Accept: model/gltf-binary' \
  -o "$2" "$TRELLIS2_URL/extract_glb"
