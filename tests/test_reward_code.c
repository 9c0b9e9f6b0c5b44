/* test_reward_code.c: the code rewarder's verdicts: finding programs, comparing outputs, calls and their values,
 * limits. What hostile programs try is in tests/hostile; isolation and crashes are in test_reward_sandbox.c.
 * (run.sh: alone) */
#include "tests/code_help.h"

#include "reward/code.h"

static int open_reward(void **state) {
    Err err = {{0}};
    *state = code_open(false, 0, &err);
    if (!*state) fprintf(stderr, "%s\n", err.msg);
    return *state ? 0 : -1;
}

static int close_reward(void **state) {
    reward_close(*state);
    return 0;
}

/* ---- without running anything ---- */

static void check_extract(const char *language, const char *completion, const char *prompt, const char *wanted) {
    char *code = code_extract(completion, prompt, "f", language_find(language));
    if (!wanted)
        assert_null(code);
    else
        assert_string_equal(code, wanted);
    free(code);
}

static void test_extract(void **state) {
    (void)state;
    check_extract("python", "Text\n```python\na = 1\n```\nmore", NULL, "a = 1\n");
    check_extract("python", "```python\na\n```\n```py\nb\n```\n```\nc\n```", NULL,
                  "b\n"); /* the last of the language */
    check_extract("python", "```\na\n```\nx\n```\nb\n```", NULL, "b\n");
    check_extract("python", "```c\nint x;\n```", NULL, NULL);
    check_extract("python", "```python\nunfinished", NULL, "unfinished");
    check_extract("python", "````python\n```\ninner\n```\n````", NULL, "```\ninner\n```\n");
    check_extract("python", "~~~python\na\n~~~", NULL, "a\n");
    check_extract("python", "print(1)", NULL, "print(1)");
    check_extract("python", " \n\t\n", NULL, NULL);
    check_extract("python", "", NULL, NULL);
    check_extract("python", "```python\nwrong\n```</think>```Python\nright\n```", NULL, "right\n");
    check_extract("cpp", "```c++\nint main(){}\n```", NULL, "int main(){}\n");
    check_extract("c", "```cpp\nint main(){}\n```", NULL, NULL);
    check_extract("python", "  ```python\n  a\n  ```", NULL, "  a\n");
}

static void test_continuation(void **state) {
    (void)state;
    const char *prompt = "import re\n\ndef f(x):\n    \"\"\"Doc.\"\"\"\n";
    check_extract("python", "    return x\n", prompt,
                  "import re\n\ndef f(x):\n    \"\"\"Doc.\"\"\"\n    return x\n");
    check_extract("python", "```python\ndef f(x):\n    return 1\n```", prompt,
                  "import re\n\ndef f(x):\n    return 1\n");
    check_extract("python", "def f(x):\n    return 1\n", prompt, "import re\n\ndef f(x):\n    return 1\n");
    check_extract("python", "def f(x):\n    return 1\n", "Write f, which returns 1.", "def f(x):\n    return 1\n");
}

static void check_outputs(const char *a, const char *b, Compare compare, bool wanted) {
    assert_int_equal(outputs_equal(a, strlen(a), b, strlen(b), compare, 1e-6), wanted);
}

static void test_compare(void **state) {
    (void)state;
    check_outputs("1\n2\n", "1  \n2\t\r\n\n\n", COMPARE_LINES, true);
    check_outputs("1\n2", "1\n2\n3", COMPARE_LINES, false);
    check_outputs("1\n2\n3", "1\n2", COMPARE_LINES, false);
    check_outputs("1\n\n2", "1\n2", COMPARE_LINES, false);
    check_outputs(" 1", "1", COMPARE_LINES, false);
    check_outputs("Yes", "yes", COMPARE_LINES, false);
    check_outputs("", "\n \n", COMPARE_LINES, true);
    check_outputs("", "x", COMPARE_LINES, false);
    check_outputs("1 2\n3", "1\n2 3 ", COMPARE_TOKENS, true);
    check_outputs("1 2", "1 2 3", COMPARE_TOKENS, false);
    check_outputs("1.0", "1", COMPARE_TOKENS, false);
    check_outputs("1.0", "1.0000001", COMPARE_FLOATS, true);
    check_outputs("1.0", "1.00001", COMPARE_FLOATS, false);
    check_outputs("1e9", "1000000001", COMPARE_FLOATS, true);
    check_outputs("1", "nan", COMPARE_FLOATS, false);
    check_outputs("nan", "0", COMPARE_FLOATS, false);
    check_outputs("1", "inf", COMPARE_FLOATS, false);
    check_outputs("a 1", "b 1", COMPARE_FLOATS, false);
}

/* ---- calls ---- */

static void test_values_cross(void **state) {
    static const char *const values[] = {"None",
                                         "True",
                                         "0",
                                         "-1",
                                         "255",
                                         "-256",
                                         "10**100",
                                         "-(10**100)",
                                         "1.5",
                                         "float('inf')",
                                         "2j",
                                         "'text'",
                                         "'\\ud800 \\0 é'",
                                         "b'\\0\\xff'",
                                         "bytearray(b'ab')",
                                         "[1, [2, []]]",
                                         "(1,)",
                                         "()",
                                         "{'a': [1]}",
                                         "{}",
                                         "{1, 2}",
                                         "set()",
                                         "frozenset({1})",
                                         "range(3, 9, 2)",
                                         "Ellipsis",
                                         "slice(1, 2)",
                                         "[None] * 1000",
                                         "int",
                                         "__import__('decimal').Decimal('1.10')",
                                         "__import__('fractions').Fraction(1, 3)",
                                         "__import__('collections').deque([1, 2])",
                                         "__import__('collections').Counter('aab')",
                                         "__import__('collections').OrderedDict(a=1)",
                                         "__import__('datetime').date(2020, 1, 2)",
                                         "__import__('datetime').timedelta(1, 2)",
                                         "'x' * 200000"};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char code[256], test[512];
        snprintf(code, sizeof code, "def f(x):\n    return x, %s", values[i]);
        snprintf(test, sizeof test, "assert f(%s) == (%s, %s) and type(f(1)[1]) == type(%s)", values[i], values[i],
                 values[i], values[i]);
        expect_verdict(*state, row_asserts(code, test), "pass");
    }
    expect_verdict(*state, row_asserts("def f(x): return True", "assert f(1) is True"), "pass");
    expect_verdict(*state, row_asserts("def f(x): return float('nan')", "assert f(1) != f(1)"), "pass");
    expect_verdict(*state, row_asserts("def f(x): x.append(4)", "x = [1]; f(x); assert x == [1]"),
                   "pass"); /* by value */
}

static void test_handles(void **state) {
    const char *node =
        "class Node:\n    def __init__(self, v): self.v, self.next = v, None\n"
        "    def __eq__(self, o): return self.v == o.v\n    def __hash__(self): return 1\n"
        "    def __add__(self, o): return Node(self.v + (o.v if isinstance(o, Node) else o))\n"
        "    def __iter__(self): return iter([self.v])\n    def __len__(self): return 1\n"
        "    def __repr__(self): return 'Node(%s)' % self.v\n"
        "class Oops(ValueError): pass\n"
        "def f(n):\n    if n is None: raise Oops('none')\n    return n.v if n.next is None else f(n.next)\n"
        "def gen(n):\n    while n:\n        yield n\n        n -= 1\n"
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\n"
        "def make(v): return Node(v)\ndef point(): return P(1, 2)\n";
    static const char *const tests[] = {
        "n = Node(1); n.next = Node(5); assert f(n) == 5",
        "assert make(3).v == 3 and make(3) == Node(3) and make(3) != Node(4)",
        "assert make(3) != 3 and not (make(3) == 3)",
        "assert (make(3) + make(4)).v == 7 and (make(3) + 4).v == 7",
        "assert list(make(3)) == [3] and len(make(3)) == 1 and repr(make(3)) == 'Node(3)' and 3 in make(3)",
        "assert isinstance(make(3), Node)",
        "assert list(gen(3)) == [3, 2, 1] and next(gen(7)) == 7 and sum(gen(4)) == 10 and tuple(zip(gen(2), "
        "'ab')) == ((2, 'a'), (1, 'b'))",
        "assert point() == (1, 2) and point().x == 1 and point()[1] == 2 and tuple(point()) == (1, 2)",
        "try:\n    f(None)\n    assert False\nexcept Oops as e:\n    assert str(e) == 'none'",
        "try:\n    f(None)\n    assert False\nexcept ValueError:\n    pass",
        "try:\n    f(5)\n    assert False\nexcept AttributeError:\n    pass",
        "assert callable(make) and list(map(lambda n: n.v, [make(1), make(2)])) == [1, 2]",
        "assert len({make(1), make(1), make(2)}) == 2",
    };
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        expect_verdict(*state, row_asserts(node, tests[i]), "pass");
    expect_verdict(
        *state,
        row_asserts("def f(g, xs): return [g(x) for x in xs]", "assert f(lambda v: v * 2, [1, 2]) == [2, 4]"),
        "pass");
    expect_verdict(
        *state, row_asserts("def f(g, xs): return sorted(xs, key=g)", "assert f(len, ['aa', 'b']) == ['b', 'aa']"),
        "pass");
    json_t *row =
        row_asserts("def f(n):\n    s = 0\n    while n:\n        s += n.v\n        n = n.next\n    return s",
                    "assert f(T(1, T(2, None))) == 3");
    json_object_set_new(row, "setup",
                        json_string("class T:\n    def __init__(self, v, n): self.v, self.next = v, n"));
    expect_verdict(*state, row, "pass");
}

static void test_calls_fail(void **state) {
    expect_verdict(*state, row_asserts("def f(x): return x + 1", "assert candidate(1) == 2"), "pass");
    expect_verdict(*state, row_asserts("def f(x): return x + 1", "assert f(1) == 3"), "wrong-answer");
    expect_verdict(*state, row_asserts("def f(x): return 1 / 0", "assert f(1) == 3"), "runtime-error");
    expect_verdict(*state, row_asserts("def g(x): return 1", "assert f(1) == 3"), "runtime-error");
    expect_verdict(*state, row_asserts("def f(x) return", "assert f(1) == 3"), "compile-error");
    expect_verdict(*state, row_asserts("f = None", "assert f(1) == 3"), "runtime-error");
    expect_verdict(*state, row_asserts("def f(x): return input()", "assert f(1) == 3"), "runtime-error");
    expect_verdict(*state, row_asserts("", "assert f(1) == 3"), "no-code");
    expect_verdict(*state, row_asserts("def f(x): return 1", "assert f(1 =="),
                   "sandbox-error"); /* the row's fault */
    expect_verdict(*state, json_pack("{s:s, s:s}", "completion", "x = 1", "language", "python"), "sandbox-error");
    expect_verdict(*state, json_pack("{s:s, s:s, s:[]}", "completion", "x = 1", "language", "python", "tests"),
                   "sandbox-error");
    expect_verdict(*state, row_io("cobol", "x = 1", "", ""), "sandbox-error");
}

static void test_check(void **state) {
    json_t *row = json_pack(
        "{s:s, s:s, s:s, s:s}", "prompt", "import math\ndef half(x): return x // 2\ndef f(x):\n    '''Doc.'''\n",
        "completion", "    return half(x) + math.floor(0.5)\n", "check",
        "def check(candidate):\n    for i in range(10):\n        assert candidate(i) == i // 2\n", "entry_point",
        "f");
    json_t *wrong = json_deep_copy(row);
    expect_verdict(*state, row, "pass");
    json_object_set_new(wrong, "completion", json_string("    return x\n"));
    expect_verdict(*state, wrong, "wrong-answer");
}

static void test_results_per_test(void **state) {
    (void)state;
    Err err = {{0}};
    const char *name = "code_share";
    RewardConf conf = {.workers = 1};
    Reward *reward = reward_open(&name, 1, &conf, &err);
    assert_non_null(reward);
    json_t *row =
        json_pack("{s:s, s:[s, s, s], s:s}", "completion", "def f(x): return x if x else 1 / x", "asserts",
                  "assert f(1) == 1", "assert f(0) == 0", "assert f(2) == 3", "entry_point", "f");
    RewardScore score = code_judge(reward, row);
    reward_close(reward);
    assert_string_equal(score.verdict, "runtime-error");
    assert_true(score.value > 0.33 && score.value < 0.34);
    json_t *detail = json_loads(score.detail, 0, NULL), *results = json_object_get(detail, "results");
    static const char *const wanted[] = {"pass", "runtime-error", "wrong-answer"};
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(json_string_value(json_object_get(json_array_get(results, i), "verdict")), wanted[i]);
    json_decref(detail);
    reward_score_free(&score);
}

/* ---- programs ---- */

static void test_programs(void **state) {
    static const char *const codes[][2] = {
        {"python", "import sys\nfor line in sys.stdin:\n    print(int(line) * 2)"},
        {"c",
         "#include <stdio.h>\nint main() { int x; while (scanf(\"%d\", &x) == 1) printf(\"%d\\n\", 2 * x); }"},
        {"cpp", "```cpp\n#include <iostream>\nint main() { int x; while (std::cin >> x) std::cout << 2 * x << "
                "'\\n'; }\n```"},
    };
    for (int i = 0; i < 3; i++) {
        expect_verdict(*state, row_io(codes[i][0], codes[i][1], "1\n2\n", "2\n4"), "pass");
        expect_verdict(*state, row_io(codes[i][0], codes[i][1], "1\n2\n", "2\n5"), "wrong-answer");
    }
    expect_verdict(*state, row_io("c", "int main() { return 3; }", "", ""), "runtime-error");
    expect_verdict(*state, row_io("c", "int main() { retrun 0; }", "", ""), "compile-error");
    expect_verdict(*state, row_io("python", "print(1); raise SystemExit(0)", "", "1"), "pass");
    expect_verdict(*state, row_io("python", "print(1); raise SystemExit(1)", "", "1"), "runtime-error");
    expect_verdict(*state, row_io("python", "if __name__ == '__main__': exit(print(1))", "", "1"), "pass");
    expect_verdict(
        *state, row_io("python", "import threading\nthreading.Timer(0.1, print, (1,)).start()", "", "1"), "pass");
    expect_verdict(*state, row_io("python", "import atexit\natexit.register(print, 1)", "", "1"), "pass");
}

/* More input than any pipe holds, which the program never reads; and output that echoes all of it. */
static void test_big_input(void **state) {
    size_t n = 3 << 20;
    char *text = mem_alloc(n + 1, 1);
    memset(text, 'x', n);
    for (size_t i = 99; i < n; i += 100) text[i] = '\n';
    expect_verdict(*state, row_io("python", "print(1)", text, "1"), "pass");
    json_t *row = row_io("python", "import sys\nsys.stdout.write(sys.stdin.read())", text, text);
    json_object_set_new(row, "limits", json_pack("{s:i}", "stdout_kib", 4096));
    expect_verdict(*state, row, "pass");
    expect_verdict(*state, row_io("python", "import sys\nsys.stdout.write(sys.stdin.read())", text, text),
                   "output-limit");
    free(text);
}

static void test_comparisons(void **state) {
    json_t *row = row_io("python", "print(1.00000001, end=' ')\nprint('a')", "", "1.0\na");
    json_object_set_new(row, "compare", json_string("floats"));
    expect_verdict(*state, row, "pass");
    row = row_io("python", "print(int(input()) + 2)", "3", "any larger one");
    json_object_set_new(row, "checker",
                        json_string("def checker(stdin, output, expected):\n    return int(output) > int(stdin)"));
    json_t *wrong = json_deep_copy(row);
    expect_verdict(*state, row, "pass");
    json_object_set_new(wrong, "completion", json_string("print(input())"));
    expect_verdict(*state, wrong, "wrong-answer");
}

static json_t *limited(json_t *row, const char *limit, double value) {
    json_object_set_new(row, "limits", json_pack("{s:f}", limit, value));
    return row;
}

/* Programs that never end, each judged within its deadline and half a second; what the three took together. */
static double endless_seconds(void **state) {
    double start = clock_seconds();
    expect_verdict(*state, limited(row_io("python", "while 1: pass", "", ""), "wall_s", 0.5), "time-limit");
    expect_verdict(*state, limited(row_asserts("def f(x):\n    while 1: pass", "assert f(1)"), "wall_s", 0.5),
                   "time-limit");
    /* a judge that loops on what the candidate gave counts against the candidate too */
    expect_verdict(
        *state,
        limited(row_asserts("def f(x): return 10**12", "assert sum(1 for _ in range(f(1)))"), "wall_s", 0.5),
        "time-limit");
    return clock_seconds() - start;
}

static void test_limits(void **state) {
    double bound = 3 * 1.0 + 1;
    assert_true(endless_seconds(state) < bound || endless_seconds(state) < bound); /* twice where it was busy */
    expect_verdict(*state, limited(row_io("python", "x = bytearray(1 << 29)", "", ""), "mem_mib", 64),
                   "memory-limit");
    expect_verdict(*state, limited(row_io("python", "print('x' * 5000)", "", ""), "stdout_kib", 2),
                   "output-limit");
    for (int i = 0; i < 20; i++) /* whether the worker reads it before or after the program's end */
        expect_verdict(*state, limited(row_io("python", "print('x' * 5000)", "", "1"), "stdout_kib", 2),
                       "output-limit");
    expect_verdict(*state,
                   limited(row_asserts("def f(x):\n    print('x' * 50000, flush=True)\n    return x",
                                       "assert f(1) == 1"),
                           "stdout_kib", 2),
                   "output-limit");
    expect_verdict(
        *state,
        limited(row_io("python", "open('a', 'wb', 0).write(b'x' * 5000); open('a', 'ab', 0).write(b'x')", "", ""),
                "file_kib", 2),
        "runtime-error");
    expect_verdict(*state, limited(row_io("python", "import os\nos.fork()", "", ""), "procs", 1), "process-limit");
    expect_verdict(
        *state,
        limited(row_io("python", "import os\nif os.fork() == 0: os._exit(0)\nprint(1)", "", "1"), "procs", 2),
        "pass");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_extract),     cmocka_unit_test(test_continuation),
        cmocka_unit_test(test_compare),     cmocka_unit_test(test_values_cross),
        cmocka_unit_test(test_handles),     cmocka_unit_test(test_calls_fail),
        cmocka_unit_test(test_check),       cmocka_unit_test(test_results_per_test),
        cmocka_unit_test(test_programs),    cmocka_unit_test(test_big_input),
        cmocka_unit_test(test_comparisons), cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, open_reward, close_reward);
}
