#!/usr/bin/env python3
"""code_references.py: the reference solutions of HumanEval and MBPP must pass, mutants of them must fail.

usage: tests/code_references.py WHET DATA_FOLDER [--mutants N]

Prints what failed among the references (mbpp-123 needs about 10 to 30 s by itself and counts neither way) and
which mutants survived. A mutant changes one operator or constant so that the solution gives another result on
one of the row's own calls (compared here, by running both with plain Python); those that change nothing that
the tests could see are no mutants. Exit status 0: all references pass within 10 s, at least 95 % of the mutants
fail, nothing is unjudged.
"""

import ast, copy, gzip, json, os, random, signal, subprocess, sys, time

SLOW = {"mbpp-123"}
SWAPS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.BitXor: ast.BitOr,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


def read(folder, name):
    with gzip.open(os.path.join(folder, name + ".jsonl.gz"), "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def rows_of(folder):
    for r in read(folder, "humaneval_dev"):
        yield {
            "id": r["id"],
            "completion": r["reference_solution"],
            "prompt": r["prompt"],
            "check": r["tests"][0],
            "entry_point": r["entry_point"],
            "language": "python",
        }
    for name in ("mbpp_train", "mbpp_validation", "mbpp_test_dev"):
        for r in read(folder, name):
            yield {
                "id": r["id"],
                "completion": "```python\n" + r["reference_solution"] + "\n```",
                "asserts": r["tests"],
                "setup": r["setup"],
                "entry_point": r["entry_point"],
                "language": "python",
            }


def source_of(row):
    return row["prompt"] + row["completion"] if "prompt" in row else row["completion"][10:-4]


def places(tree):
    """(node, field, index, new value) of each change of one operator or constant."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)) and type(node.op) in SWAPS:
            yield node, "op", None, SWAPS[type(node.op)]()
        elif isinstance(node, ast.Compare):
            for i, op in enumerate(node.ops):
                if type(op) in SWAPS:
                    yield node, "ops", i, SWAPS[type(op)]()
        elif isinstance(node, ast.Constant) and type(node.value) in (int, bool):
            yield node, "value", None, (not node.value) if type(node.value) is bool else node.value + 1
        elif isinstance(node, ast.Constant) and type(node.value) is float:
            yield node, "value", None, node.value * 2 + 1


def mutants_of(row, most, rng):
    try:
        tree = ast.parse(source_of(row))
    except SyntaxError:
        return
    found = list(places(tree))
    rng.shuffle(found)
    for node, field, index, new in found[:most]:
        holder = getattr(node, field) if index is not None else None
        old = holder[index] if index is not None else getattr(node, field)
        if index is not None:
            holder[index] = new
        else:
            setattr(node, field, new)
        text = ast.unparse(tree)
        if index is not None:
            holder[index] = old
        else:
            setattr(node, field, old)
        yield text


CALLS = """
import sys, json, signal, ast
signal.alarm(5)
source, setup, tests, entry = json.loads(sys.stdin.read())
seen = []
def outcome(f):
    def call(*args, **kwargs):
        try:
            value = f(*args, **kwargs)
            seen.append(repr(list(value)) if hasattr(value, "__next__") else repr(value))
        except BaseException as error:
            seen.append("raises " + type(error).__name__)
            raise
        return value
    return call
space = {"__name__": "m"}
try:
    exec(source, space)
    exec(setup or "", space)
    space[entry] = outcome(space[entry])
    for test in tests:
        try:
            exec(test, space)
        except BaseException as error:
            seen.append(type(error).__name__)
except BaseException as error:
    seen.append("load " + type(error).__name__)
import re
sys.stdout.write("\\0" + json.dumps([re.sub("0x[0-9a-f]+", "", s) for s in seen]))
"""


def results(row, source):
    """What the row's own calls give, by plain Python; None when it takes too long."""
    tests = row["asserts"] if "asserts" in row else [row["check"] + "\ncheck(%s)" % row["entry_point"]]
    try:
        run = subprocess.run(
            [sys.executable, "-c", CALLS],
            input=json.dumps([source, row.get("setup"), tests, row["entry_point"]]),
            capture_output=True,
            text=True,
            timeout=10,
        )
        return run.stdout.rpartition("\0")[2] or "died"
    except subprocess.TimeoutExpired:
        return "hangs"


def score(whet, rows):
    data = "".join(json.dumps(row) + "\n" for row in rows)
    run = subprocess.run(
        [whet, "score", "--reward_funcs", "code"], input=data, stdout=subprocess.PIPE, text=True, check=True
    )
    out = [json.loads(line) for line in run.stdout.splitlines()]
    assert [r["id"] for r in out] == [r["id"] for r in rows], "rows or order differ"
    return out


def references(whet, rows):
    bad = 0
    start = time.monotonic()
    for r in score(whet, rows):
        if r["id"] in SLOW:
            print("slow by itself: %s: %s after %.1f s" % (r["id"], r["verdict"], r["seconds"]))
        elif r["verdict"] != "pass" or r["seconds"] > 10:
            bad += 1
            print("reference %s: %s %.1f s: %s" % (r["id"], r["verdict"], r["seconds"], r.get("reason")))
    print(
        "references: %d of %d pass, %.1f s"
        % (len(rows) - bad - len(SLOW), len(rows) - len(SLOW), time.monotonic() - start)
    )
    return bad == 0


def mutants(whet, rows, total):
    rng = random.Random(6)
    rng.shuffle(rows)
    made = []
    for row in rows:
        if len(made) >= total:
            break
        if row["id"] in SLOW:
            continue
        right = results(row, source_of(row))
        for i, text in enumerate(mutants_of(row, 3, rng)):
            if results(row, text) != right:
                made.append(
                    dict(
                        {k: v for k, v in row.items() if k != "prompt"},
                        id="%s mutant %d" % (row["id"], i),
                        completion="```python\n" + text + "\n```",
                        limits={"wall_s": 5},
                    )
                )
    out = score(whet, made)
    alive = [r for r in out if r["class"] == "right"]
    unjudged = [r for r in out if r["class"] == "unjudged"]
    for r in alive + unjudged:
        print("survivor: %s: %s" % (r["id"], r["verdict"]))
    print(
        "mutants: %d of %d fail (%.2f %%), %d unjudged"
        % (
            len(out) - len(alive) - len(unjudged),
            len(out),
            100 - 100 * len(alive) / max(1, len(out)),
            len(unjudged),
        )
    )
    return len(alive) <= 0.05 * len(out) and not unjudged


def main():
    whet, folder = sys.argv[1], sys.argv[2]
    if not os.path.exists(os.path.join(folder, "humaneval_dev.jsonl.gz")):
        print("SKIPPED: no data in " + folder)
        return 0
    rows = list(rows_of(folder))
    ok = references(whet, rows)
    if "--mutants" in sys.argv:
        ok &= mutants(whet, rows, int(sys.argv[sys.argv.index("--mutants") + 1]))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
