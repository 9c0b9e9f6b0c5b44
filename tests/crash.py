#!/usr/bin/env python3
"""crash.py WHET FAULTS.SO [KILLS [EVERY]]: a run that was stopped anywhere, by anything, goes on to the same end.

Each run lies in a folder of its own and is always started with the same command, --resume_from_checkpoint last. A run
that was disturbed and then goes on must end with the undisturbed run's checkpoints, byte for byte, the same ordered dump
of its store without the columns of time (and without attempts), and the same metrics.jsonl without seconds.

  kills    kill -9 at random moments of a run of 30 steps, KILLS of them (200); what happens does not depend on when
  faults   at every EVERY-th (1) call that changes a file (tests/faults.c): the process killed; the power gone, with all
           that was not synced, or only the data, or only the names; a write error; a full disk
"""
import concurrent.futures, json, os, random, re, shutil, signal, sqlite3, subprocess, sys, tempfile, threading, time

WHET, FAULTS = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
KILLS = int(sys.argv[3]) if len(sys.argv) > 3 else 200
EVERY = int(sys.argv[4]) if len(sys.argv) > 4 else 1
WORK = tempfile.mkdtemp(prefix="whet-crash-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
TINY = ["--model_name_or_path", "tests/goldens/tiny-llama", "--dataset_name", "generate:sums:min=1:max=3:held=1,1,3",
        "--prompt_template", "Q: {problem}\nA:", "--reward_funcs", "math,format", "--reward_weights", "1.0,0.1",
        "--num_generations", "4", "--per_device_train_batch_size", "8", "--max_prompt_length", "48",
        "--max_completion_length", "8", "--learning_rate", "1e-3", "--beta", "0.02", "--top_k", "300", "--threads", "1",
        "--max_eval_samples", "4", "--max_memory", "200M"]
LONG = TINY + ["--max_steps", "30", "--save_steps", "5", "--eval_steps", "10"]
SHORT = TINY + ["--max_steps", "4", "--save_steps", "2", "--eval_steps", "3", "--save_total_limit", "1"]
TIMES = {("step_seconds", "seconds"), ("scores", "microseconds"), ("step_verdicts", "microseconds"), ("evals", "seconds")}
passed, failed = 0, 0


def command(recipe, folder):
    return [WHET, "train", *recipe, "--output_dir", folder, "--resume_from_checkpoint", "last"]


def run(recipe, folder, **env):
    done = subprocess.run(command(recipe, folder), env={**os.environ, **env}, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, timeout=120)
    return done.returncode, done.stderr.decode(errors="replace")


def dump(path):
    db, rows = sqlite3.connect(path), []
    for (table,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall():
        if table == "attempts" or table.startswith("sqlite_"):
            continue
        names = [c[1] for c in db.execute(f"PRAGMA table_xinfo({table})") if (table, c[1]) not in TIMES]
        names = ", ".join(names)
        rows += [(table, *row) for row in db.execute(f"SELECT {names} FROM {table} ORDER BY {names}")]
        if table == "runs":  # the recipe names the folder of the run
            rows = [tuple(re.sub('"output_dir": *"[^"]*"', "", c) if isinstance(c, str) else c for c in r) for r in rows]
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return rows


def end_of(folder):
    """What a run leaves behind: its checkpoints, its store, its metrics."""
    end = {}
    for name in sorted(os.listdir(folder)):
        if name.startswith(("checkpoint-", "tmp-")):
            for file in sorted(os.listdir(f"{folder}/{name}")):
                end[f"{name}/{file}"] = open(f"{folder}/{name}/{file}", "rb").read()
    end["run.db"] = dump(f"{folder}/run.db")
    lines = [json.loads(line) for line in open(f"{folder}/metrics.jsonl")]
    for line in lines:
        line.pop("seconds")
    end["metrics.jsonl"] = lines
    return end


def differs(end, want):
    return [key for key in sorted({*end, *want}) if end.get(key) != want.get(key)]


def whole(recipe, name):
    folder = f"{WORK}/{name}"
    status, said = run(recipe, folder)
    assert status == 0, said
    return end_of(folder)


def report(name, wrong):
    global passed, failed
    passed, failed = passed + (not wrong), failed + bool(wrong)
    if wrong:
        print(f"FAILED: {name}: {wrong}")


# ---- kills ----

def kill_chain(number, want, left):
    """One run, killed again and again until it is done or the kills are used up, then left in peace."""
    folder, rng = f"{WORK}/killed-{number}", random.Random(number)
    kills = 0
    while kills < 8:
        with left["lock"]:
            if left["kills"] <= 0:
                break
        process = subprocess.Popen(command(LONG, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0, left["seconds"]))
        early = process.poll() is None
        with left["lock"]:  # kills are to come before the end, on a machine that is busy and on one that is not
            left["seconds"] *= 1.02 if early else 0.8
        if not early:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        with left["lock"]:
            left["kills"] -= 1
    status, said = run(LONG, folder)
    wrong = f"status {status}: {said}" if status else differs(end_of(folder), want)
    shutil.rmtree(folder)
    return f"run {number}, killed {kills} times", wrong


def kills():
    began = time.monotonic()
    want, number = whole(LONG, "whole-long"), 0
    left = {"kills": KILLS, "seconds": time.monotonic() - began, "lock": threading.Lock()}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        while left["kills"] > 0:
            batch = [pool.submit(kill_chain, number + i, want, left) for i in range(os.cpu_count())]
            number += len(batch)
            for one in batch:
                report(*one.result())
    print(f"{KILLS - left['kills']} kills in {number} runs of 30 steps")


# ---- faults ----

def fault(kind, at, before, want):
    """A fault at one call of a run, which begins as the folder `before` is (None: from nothing)."""
    folder, shadow = (f"{WORK}/{kind}-{at}-{before is None}{part}" for part in ("", "-shadow"))
    shutil.copytree(before, folder) if before else os.makedirs(folder)
    os.makedirs(shadow)
    status, said = run(SHORT, folder, LD_PRELOAD=FAULTS, FAULT_ROOT=folder, FAULT_AT=str(at), FAULT_KIND=kind,
                       FAULT_SHADOW=shadow)
    name = f"{kind} at call {at}{' after a checkpoint' if before else ''}"
    if kind in ("error", "full"):  # one line that says where; or the call did not matter
        if status not in (0, 1) or (status == 1 and not any(folder in line for line in said.splitlines())):
            return name, f"status {status}: {said}"
    elif status != -signal.SIGKILL:
        return name, f"status {status}: {said}"
    status, said = run(SHORT, folder)
    wrong = f"then status {status}: {said}" if status else differs(end_of(folder), want)
    for path in (folder, shadow):
        shutil.rmtree(path, ignore_errors=True)
    return name, wrong


def calls_of(before, want):
    """The calls of an undisturbed run, as (what, file)."""
    folder, log = f"{WORK}/counted-{before is None}", f"{WORK}/log"
    shutil.copytree(before, folder) if before else os.makedirs(folder)
    status, said = run(SHORT, folder, LD_PRELOAD=FAULTS, FAULT_ROOT=folder, FAULT_LOG=log)
    assert status == 0, said
    report("a run under watch", differs(end_of(folder), want))
    return [line.split(" ", 2)[1:] for line in open(log).read().splitlines()]


def faults():
    want = whole(SHORT, "whole-short")
    calls = calls_of(None, want)
    saved = 1 + next(i for i, (what, file) in enumerate(calls) if what == "rename" and file.endswith("/checkpoint-2"))
    before = f"{WORK}/before"  # a run that died when its first checkpoint was in place and the next step stored
    os.makedirs(before)
    run(SHORT, before, LD_PRELOAD=FAULTS, FAULT_ROOT=before, FAULT_AT=str(saved + 30), FAULT_KIND="kill")
    rest = calls_of(before, want)
    jobs = []  # every call of the steps that follow, and some of the whole run, its beginning included
    for k, kind in enumerate(("kill", "power", "error", "full", "power-data", "power-names")):
        step = EVERY if k < 4 else 3 * EVERY
        jobs += [(kind, at, before) for at in range(1 + k % step, len(rest) + 1, step)]
        jobs += [(kind, at, None) for at in range(1 + 3 * k, len(calls) + 1, 19 * step)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in pool.map(lambda job: fault(*job, want), jobs):
            report(*done)
    print(f"{len(jobs)} faults: at the {len(rest)} calls of 2 steps and a checkpoint, at some of {len(calls)} of a whole run")


try:
    faults()
    kills()
finally:
    shutil.rmtree(WORK, ignore_errors=True)
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
