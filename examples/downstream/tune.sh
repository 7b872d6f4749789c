#!/usr/bin/env bash
# Tunes the kernel from its source file on this machine's GPU, then checks that a call of the crate runs with the
# schedule that was found. SPARSEK and DOWNSTREAM name the two programs where there is no toolchain.
set -euo pipefail
cd "$(dirname "$0")"
length=${1:-65536}
sparsek=${SPARSEK:-sparsek}

"$sparsek" tune src/lib.rs::AlibiCapped --heads 32/8 --head-dim 128 --k 512 --window 512 --seq "$length" --level quick
"$sparsek" doctor src/lib.rs
if [ -n "${DOWNSTREAM:-}" ]; then
  said=$("$DOWNSTREAM" "$length")
else
  said=$(cargo run --quiet --release -- "$length")
fi
printf '%s\n' "$said"
if ! grep -q '^source  *tuned, [0-9a-f]\{8\} of the store$' <<<"$said"; then
  echo "error: the call did not run with the tuned schedule" >&2
  exit 1
fi
