#!/usr/bin/env python3
"""exec_rewarder.py MODE: a reward program for tests/test_reward_exec.c and tests/exec_rewarder.sh. The reward of an answer is its length
in characters over 100. What it does wrong depends on MODE and on the answer: only those that hold BAD are affected;
with -all behind MODE every one, with sometimes- before it every fifth by a hash of the answer."""
import json, os, random, sys, time, zlib

mode = sys.argv[1]
seen = 0


def reply(row, **more):
    print(json.dumps({"id": row["id"], "reward": len(row["completion"]) / 100, **more}), flush=True)


if mode == "banner":
    print("loading the model ...", flush=True)
if mode == "stderr":
    sys.stderr.write("x" * 3_000_000)
if mode == "die-at-once-all":
    sys.exit("no licence")
if mode == "noread-all":
    time.sleep(1000)
if mode == "flood-all":
    while True:
        sys.stdout.write("y" * 100_000)
if mode == "shuffle":  # answers come in another order than the requests
    held = []
    while True:
        line = sys.stdin.readline()
        if line:
            held.append(json.loads(line))
        if len(held) == 4 or not line or (held and seen > 92):
            random.Random(seen).shuffle(held)
            for row in held:
                reply(row)
            seen += len(held)
            held = []
        if not line:
            sys.exit(0)
for line in sys.stdin:
    row = json.loads(line)
    bad = "BAD" in row["completion"] or mode.endswith("-all")
    kind = mode.removesuffix("-all").removeprefix("sometimes-")
    if kind != mode and not mode.endswith("-all"):
        bad = zlib.crc32((row["prompt"] + row["completion"]).encode()) % 5 == 0
    seen += 1
    if not bad:
        reply(row, reason="its length", shape={"n": len(row["completion"])})
    elif kind == "hang":
        time.sleep(1000)
    elif kind == "die":
        os._exit(3)
    elif kind == "kill":
        os.kill(os.getpid(), 9)
    elif kind == "flood":
        while True:
            print("flood " * 100)
    elif kind == "rubbish":
        print("Traceback: rubbish", flush=True)
    elif kind == "nan":
        reply(row, reward=float("nan"))
    elif kind == "text":
        reply(row, reward="good")
    elif kind == "null":
        reply(row, reward=None, reason="no opinion")
    elif kind == "wrong-id":
        for wrong in range(5000):
            print(json.dumps({"id": 10_000_000 + wrong, "reward": 1}))
        sys.stdout.flush()
    elif kind == "twice":
        reply(row)
        reply(row)
    elif kind == "close":
        os.close(1)
        time.sleep(1000)
    elif kind == "one":  # ends after each answer
        reply(row)
        sys.exit(0)
    else:
        reply(row)
