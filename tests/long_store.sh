#!/usr/bin/env bash
# long_store.sh: a store of a million samples of 256 tokens takes at most 16 bytes a token, all included, and every query
# of README.md and of rl/schema.sql's views is answered with little work: what is counted is the steps of SQLite's
# machine, which no other load on the machine changes; the times are printed. STORE_SAMPLES=20000 makes a small one.
set -eu
cd "$(dirname "$0")/.."
samples=${STORE_SAMPLES:-1000000} tokens=256
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
make -s build/plain/tests/store_million
build/plain/tests/store_million "$work/run.db" "$samples" $tokens
python3 - "$work/run.db" "$tokens" <<'PY'
import os, re, sqlite3, sys, time
path, tokens = sys.argv[1], int(sys.argv[2])
db = sqlite3.connect(path)
n = db.execute("SELECT max(id) FROM samples").fetchone()[0]
size, failed, passed = os.path.getsize(path), 0, 0
print(f"{n} samples, {size / 1e9:.2f} GB, {size / n / tokens:.2f} bytes a token")
good = size <= 16 * n * tokens
passed, failed = passed + good, failed + (not good)
readme = open("README.md").read()
queries = re.findall(r'sqlite3 [^"\n]*"(SELECT.*?)"', readme, re.S)
queries += [q.replace("\n--", " ") for q in re.findall(r"^--   (SELECT.*?;)", open("rl/schema.sql").read(), re.S | re.M)]
assert len(queries) > 8, queries
for query in queries:
    query = re.sub(r"\s+", " ", query)
    times = []
    for i in range(3):
        count = [0]
        def tick():
            count[0] += 1
        db.set_progress_handler(tick, 1000)
        began = time.perf_counter()
        rows = db.execute(query).fetchall()
        times.append(time.perf_counter() - began)
    good = count[0] < 1000 # a million steps: some 20 ms
    passed, failed = passed + good, failed + (not good)
    print(f"{'' if good else 'FAILED: '}{1000 * times[0]:.1f} ms, then {1000 * min(times):.1f}; {count[0]}k steps, {len(rows)} rows: {query}")
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
PY
