#!/usr/bin/env bash
# Runs the GPU kit on a machine with one GPU, Python 3.12, torch and transformers, and no network. docs/gpu.md explains it.
#
#   run.sh [--list] [--only STEP] [--again STEP]
#
# Safe to call again: pieces that are unpacked, the environment and the steps that finished are not done again, and a step starts only if its
# limit fits into what is left of this call.
#
#   KIT       folder of the pieces (default: this folder if they are here, else dist/gpu-kit of the checkout)
#   OUT       where results are copied while a step runs and when it ends: results.tar.gz with all steps of this machine,
#             state.json, summary.txt   (default: $WORK/out)
#   WORK      what must survive between calls: unpacked pieces, environment, weights, results  (default: ~/.cache/enginebench-gpu)
#   PYTHON    the interpreter that has torch  (default: python3)
#   BUDGET_S  seconds of this call  (default: 540); 0: unpack and set up, and start no step
#   TINY=1    tiny models, for a rehearsal without a GPU
#   PATIENCE  times the limits of the steps  (default: 1)
set -euo pipefail
began=$SECONDS
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kit=${KIT:-$here}
[ -e "$kit/SHA256SUMS" ] || kit=$here/../../dist/gpu-kit
[ -e "$kit/SHA256SUMS" ] || { echo "run.sh: no SHA256SUMS in $here: make gpu-kit, or set KIT to its folder" >&2; exit 2; }
kit=$(cd "$kit" && pwd)
work=${WORK:-${HOME:-/tmp}/.cache/enginebench-gpu}
mkdir -p "$work/kit" "$work/logs"
work=$(cd "$work" && pwd)
out=${OUT:-$work/out}
mkdir -p "$out"
out=$(cd "$out" && pwd)
python=$(command -v "${PYTHON:-python3}") || { echo "run.sh: ${PYTHON:-python3} not found; set PYTHON to the interpreter that has torch" >&2; exit 2; }
exec 9> "$work/lock"
flock --nonblock 9 || { echo "run.sh: another call works in $work" >&2; exit 2; }

# Pieces may come one by one: those that are here are checked and unpacked, the others are named. Nothing starts without the core.
unpacked=0 core=here
while read -r sum name; do
    if [ -e "$work/kit/.$sum" ]; then continue; fi
    if [ ! -e "$kit/$name" ]; then
        echo "piece $name is not here yet"
        case $name in piece-*-core*) core=missing ;; esac
        continue
    fi
    if ! (cd "$kit" && echo "$sum  $name" | sha256sum --check --status); then
        echo "run.sh: $name does not have the hash in SHA256SUMS: copy it again" >&2
        exit 2
    fi
    tar -xf "$kit/$name" -C "$work/kit"
    touch "$work/kit/.$sum"
    unpacked=$((unpacked + 1))
done < "$kit/SHA256SUMS"
[ $core = here ] || { echo "run.sh: a piece of the core of SHA256SUMS is missing" >&2; exit 2; }
echo "unpacked $unpacked pieces: $((SECONDS - began)) s"

# CMake and ninja may be in the environment that has torch, and in no other place.
export PATH="$(dirname "$python"):$PATH"
"$python" "$work/kit/gpu/environment.py" --kit "$work/kit" --work "$work"
setup=$((SECONDS - began))
budget=$((${BUDGET_S:-540} - setup))
exec "$work/env/bin/python" "$work/kit/gpu/steps.py" --kit "$kit" --work "$work" --out "$out" --budget "$budget" --setup "$setup" ${TINY:+--tiny} "$@"
