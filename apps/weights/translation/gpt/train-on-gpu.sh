#!/usr/bin/env bash
# Trains the translation model on a machine with one GPU and no network, within a time. From the root of a checkout:
#
#   bash apps/weights/translation/gpt/train-on-gpu.sh ROWS.jsonl.xz DEV WHEELS OUT [MINUTES] [more options of `nlpkit train`]
#
# ROWS come from `nlpkit mix`, compressed by xz; DEV is a folder of development rows (mix.jsonl is measured while
# training, the others at the end); WHEELS is a folder with wheels of what the machine's Python lacks. OUT gets the
# model as GGUF in parts of 15 MB (`cat model.gguf.* > model.gguf`), the log, the curves and the scores.
set -euo pipefail
rows=$1 dev=$2 wheels=$3 out=$4 minutes=${5:-9}
shift $(($# < 5 ? $# : 5))
began=$(date +%s)
say() { printf '[%4d s] %s\n' $(($(date +%s) - began)) "$*"; }

work=$(mktemp -d)
mkdir -p "$out" "$work/path"
ln -s "$PWD" "$work/path/nlpkit"
export PYTHONPATH=$work/path:$work/site
if compgen -G "$wheels/*.whl" >/dev/null; then
  python3 -m pip install --quiet --no-deps --no-index --target "$work/site" "$wheels"/*.whl
fi
python3 -c 'import torch, typer, rich, platformdirs, filelock, sacrebleu, gguf, sentencepiece
print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")'
say "$(nproc) cores"
xz -dc "$rows" > "$work/rows.jsonl"
say "rows are unpacked"

python3 -m nlpkit.cli train --config apps/weights/translation/gpt/recipe.toml --data "$work/rows.jsonl" \
  --eval-data "$dev/mix.jsonl" --output "$work/model" --max-minutes "$minutes" "$@" 2>&1 | tee "$out/train.log" || true
cp "$work"/model/metrics.jsonl "$work"/model/recipe.toml "$out/" || true
say "trained"
python3 -m nlpkit.cli models convert "$work/model" --to gguf-q8_0 -o "$work/model.gguf"
split -b 15000000 -d "$work/model.gguf" "$out/model.gguf."
say "the model is in $out"
for file in "$dev"/*-*.jsonl; do
  name=$(basename "$file" .jsonl)
  python3 -m nlpkit.cli eval run translation --data "$file" --model "$work/model.gguf" --beam-size 1 --limit 300 \
    --metric bleu --metric chrf --output "$work/eval-$name" 2>&1 | sed "s/^/$name: /" | tee -a "$out/scores.txt" || true
  say "scored $name"
done
rm -rf "$work"
