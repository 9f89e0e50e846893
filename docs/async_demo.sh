#!/usr/bin/env bash
# Prints the session of docs/async.md: a run with a vLLM server, killed and continued. After `make test-engines`:
#
#     docs/async_demo.sh
set -euo pipefail
python="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv-engines/bin/python"
folder=$(mktemp -d)
cd "$folder"
rlvr() { "$python" -m rlvr "$@" 2>&1 | tr '\r' '\n'; }

"$python" -m rlvr serve embedded --port 8123 > serve.log 2>&1 &
server=$!
trap 'kill $server; rm -rf "$folder"' EXIT
until curl -sf http://localhost:8123/health > /dev/null; do kill -0 $server; sleep 1; done

train=(train --mode async --sampler vllm-server --server http://localhost:8123 --trainer grpo-off --push-every 2)
echo "\$ rlvr ${train[*]} --steps 30 --out run"
"$python" -m rlvr "${train[@]}" --steps 30 --out run > first.log 2>&1 &
run=$!
until [ -e run/rollouts/step-000005.parquet ]; do kill -0 $run; sleep 0.1; done
kill -9 $run
{ wait $run || true; } 2> killed.log
tr '\r' '\n' < first.log
echo Killed
echo "\$ rlvr train --resume run"
rlvr train --resume run
