#!/usr/bin/env python3
"""code_leaks.py: many candidates in a row; afterwards processes, descriptors, mounts and files are what they
were.

usage: tests/code_leaks.py WHET ROWS

Also prints the speed and the memory of worker and caller early and late. Every 50th candidate leaves children
behind, every 50th writes files. Exit status 0: all pass, nothing grew.
"""

import json, os, subprocess, sys, time


def row(i):
    if i % 50 == 7:
        code, tests = "import os, time\nif os.fork() == 0: time.sleep(1000)\nprint(int(input()) + %d)" % i, True
    elif i % 50 == 33:
        code, tests = (
            "for k in range(20): open('f%%d' %% k, 'w').write('x' * 1000)\nprint(int(input()) + %d)" % i,
            True,
        )
    else:
        code, tests = "def f(x):\n    return x + %d" % i, False
    row = {"id": i, "language": "python", "completion": code, "entry_point": "f"}
    if tests:
        row["tests"] = [{"stdin": "1\n", "stdout": "%d\n" % (i + 1)}]
    else:
        row["asserts"] = ["assert f(%d) == %d" % (k, k + i) for k in range(3)]
    return json.dumps(row) + "\n"


def sandbox_pids():
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open("/proc/%s/cmdline" % pid, "rb").read()
            if words.startswith(b"whet-code-worker") or b"s=os.pread(5" in words:
                found[int(pid)] = words[:16]
        except OSError:
            pass
    return found


def numbers(pid):
    status = dict(line.split(":", 1) for line in open("/proc/%d/status" % pid))
    return {
        "rss_kib": int(status["VmRSS"].split()[0]),
        "fds": len(os.listdir("/proc/%d/fd" % pid)),
        "mounts": len(open("/proc/%d/mounts" % pid).readlines()),
    }


def main():
    whet, rows = sys.argv[1], int(sys.argv[2])
    before, tmp = set(sandbox_pids()), set(n for n in os.listdir("/tmp") if n.startswith("whet"))
    mounts = len(open("/proc/self/mounts").readlines())
    run = subprocess.Popen(
        [whet, "score", "--reward_funcs", "code"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    if os.fork() == 0:
        for i in range(rows):
            run.stdin.write(row(i))
        run.stdin.close()
        os._exit(0)
    run.stdin.close()
    seen, wrong, start, fault = {}, 0, time.monotonic(), 0
    for i in range(rows):
        wrong += json.loads(run.stdout.readline())["verdict"] != "pass"
        if i in (rows // 10, rows - rows // 10):
            workers = [
                p for p, words in sandbox_pids().items() if words.startswith(b"whet-code") and p not in before
            ]
            seen[i] = {"caller": numbers(run.pid), "worker": numbers(workers[0])}
            print("after %d rows: %s" % (i, seen[i]))
    seconds = time.monotonic() - start
    run.wait()
    time.sleep(2)
    early, late = [seen[k] for k in sorted(seen)]
    for who in ("caller", "worker"):
        if late[who]["rss_kib"] > early[who]["rss_kib"] + 4096:
            fault = print("%s grew" % who) or 1
        if late[who]["fds"] > early[who]["fds"] + 12:
            fault = print("%s holds descriptors" % who) or 1
        if late[who]["mounts"] != early[who]["mounts"]:
            fault = print("%s has mounts" % who) or 1
    left = set(sandbox_pids()) - before
    files = set(n for n in os.listdir("/tmp") if n.startswith("whet")) - tmp
    if left or files or len(open("/proc/self/mounts").readlines()) != mounts:
        fault = print("left: %s %s" % (left, files)) or 1
    print(
        "%d candidates, %d did not pass, %.1f s: %.0f a second; load %s"
        % (rows, wrong, seconds, rows / seconds, os.getloadavg())
    )
    return 1 if wrong or fault or run.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
