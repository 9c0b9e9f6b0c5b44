"""judge.py: holds the asserts, check and setup, and asks the candidate's process for calls. Runs in a cell of
its own.

The verdict leaves by a pipe with a nonce; the candidate has neither. What comes back from the candidate is a
plain value or a Handle. A Handle is never trusted with what the test expects: compared with a plain value it
counts as its plain base value (an int of its own class) or as different, and an operator between a Handle and a
plain value can only make another Handle. So an object that claims to equal everything equals nothing.
"""

import ast, importlib
import datetime, decimal, fractions, statistics


class RemoteError(Exception):
    """An exception of the candidate that has no harmless class here."""


class JudgePeer(Peer):
    def __init__(self, fd, token):
        Peer.__init__(self, fd, token)
        self.classes, self.told, self.remotes, self.handles = {}, None, [], {}
        self.space = {"__name__": "tests"}

    def handle_of(self, v):
        if type(v) is Handle:
            return b"k", number_of(v)
        if isinstance(v, type) and issubclass(v, BaseException) and v in self.classes.values():
            return b"k", next(n for n, c in self.classes.items() if c is v)
        return b"h", self.export(v)

    def object_of(self, tag, number):
        if tag == b"k":
            return self.objects[number]
        if number in self.classes:
            return self.classes[number]
        if number not in self.handles:
            self.handles[number] = Handle(number)
        return self.handles[number]

    def describe(self, error):
        base = next(c.__name__ for c in type(error).__mro__ if BUILTIN_TYPES.get(c.__name__) is c)
        return (base, str(error)[:300], [], "")

    def remote(self, told):
        name, text, known, limit = told
        kind = BUILTIN_TYPES.get(name, Exception)
        if not issubclass(kind, Exception) or issubclass(kind, (StopIteration, StopAsyncIteration)):
            kind = RemoteError
        for number in known:
            if number in self.classes:
                kind = self.classes[number]
                break
        try:
            error = kind(text)
        except Exception:
            error = RemoteError(name + ": " + text)
        self.remotes.append(error)
        verdict = limit if limit in ("memory-limit", "process-limit", "output-limit") else "runtime-error"
        self.told = (verdict, name, text)
        return error

    def serve(self, op, args):
        """What the candidate may do with things of the tests that were passed to it: call a function; use
        objects of classes that the tests define, but none of their private names."""
        thing = args[1] if op == "op" else args[0]
        if op == "call" and isinstance(
            thing,
            (
                types.FunctionType,
                types.BuiltinFunctionType,
                types.MethodType,
                type,
                functools.partial,
                operator.itemgetter,
                operator.attrgetter,
            ),
        ):
            if (
                isinstance(thing, (types.FunctionType, types.MethodType))
                or thing in HARMLESS
                or self.is_ours(thing)
            ):
                return thing(*args[1], **args[2])
        elif self.is_ours(type(thing)):
            if op in ("get", "set") and not args[1].startswith("_"):
                return getattr(thing, args[1]) if op == "get" else setattr(thing, args[1], args[2])
            if op == "items":
                return list(thing)
            if op == "op" and args[0] in ("eq", "lt", "getitem"):
                return getattr(operator, args[0])(*args[1:])
            if op == "op" and args[0] == "len":
                return len(thing)
        elif op == "items" and isinstance(thing, (types.GeneratorType, map, filter, zip)):
            return list(thing)
        raise TypeError("not allowed")

    def is_ours(self, kind):
        return isinstance(kind, type) and kind.__module__ == "tests"


HARMLESS = {
    abs,
    all,
    any,
    bin,
    chr,
    divmod,
    hash,
    hex,
    isinstance,
    issubclass,
    len,
    max,
    min,
    oct,
    ord,
    pow,
    repr,
    round,
    sorted,
    sum,
    int,
    float,
    str,
    bool,
    list,
    tuple,
    dict,
    set,
    frozenset,
    bytes,
    complex,
    range,
    reversed,
    enumerate,
    zip,
    map,
    filter,
    math.sqrt,
    math.gcd,
    math.floor,
    math.ceil,
    math.factorial,
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.floordiv,
    operator.mod,
    operator.neg,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
    operator.eq,
    operator.ne,
    operator.pow,
    operator.xor,
    operator.and_,
    operator.or_,
    operator.not_,
}
peer = None  # the channel of the row that is being judged; this process does one at a time


def number_of(handle):
    return object.__getattribute__(handle, "_number")


def ask(name, *args):
    return peer.request("op", name, *args)


def base_value(v):
    """(True, plain value) for a Handle whose class derives from a plain type."""
    found, value = peer.request("value", v)
    return (True, value) if found is True and type(value) is not Handle else (False, None)


def compared(name):
    """An ordering or equality. Between Handles the candidate's class decides: nothing expected is in play."""

    def method(self, other):
        if type(other) is Handle:
            result = peer.request("compare", name, self, other)
            return result if type(result) is bool else bool(result)
        found, value = base_value(self)
        if found:
            return getattr(operator, name)(value, other)
        if name in ("eq", "ne"):
            return name == "ne"
        raise TypeError("an object of the candidate's class has no order with a plain value")

    return method


def combined(name, swapped):
    def method(self, other):
        if type(other) is not Handle:
            found, value = base_value(self)
            if found:
                return getattr(operator, name)(*((other, value) if swapped else (value, other)))
        result = ask(name, *((other, self) if swapped else (self, other)))
        if type(other) is not Handle and type(result) is not Handle:
            raise TypeError("an operator of the candidate's class made a plain value out of a plain value")
        return result

    return method


class Handle:
    """An object of the candidate. Attributes, items, calls, iteration are asked for; comparisons see above."""

    __slots__ = ("_number",)

    def __init__(self, number):
        object.__setattr__(self, "_number", number)

    def __getattr__(self, name):
        return peer.request("get", self, name)

    def __setattr__(self, name, value):
        peer.request("set", self, name, value)

    def __delattr__(self, name):
        peer.request("del", self, name)

    def __call__(self, *args, **kwargs):
        return peer.request("call", self, args, kwargs)

    def __getitem__(self, key):
        return ask("getitem", self, key)

    def __setitem__(self, key, value):
        return ask("setitem", self, key, value)

    def __delitem__(self, key):
        return ask("delitem", self, key)

    def __len__(self):
        return ask("len", self)

    def __bool__(self):
        return bool(ask("bool", self))

    def __hash__(self):
        return ask("hash", self)

    def __str__(self):
        return ask("str", self)

    def __repr__(self):
        return ask("repr", self)

    def __format__(self, spec):
        return ask("format", self, spec)

    def __int__(self):
        return ask("int", self)

    def __float__(self):
        return ask("float", self)

    def __complex__(self):
        return ask("complex", self)

    def __index__(self):
        return ask("int", self)

    def __bytes__(self):
        return ask("bytes", self)

    def __dir__(self):
        return ask("dir", self)

    def __neg__(self):
        return ask("neg", self)

    def __pos__(self):
        return ask("pos", self)

    def __abs__(self):
        return ask("abs", self)

    def __invert__(self):
        return ask("invert", self)

    def __round__(self, *n):
        return ask("round", self, *n)

    def __trunc__(self):
        return ask("trunc", self)

    def __floor__(self):
        return ask("floor", self)

    def __ceil__(self):
        return ask("ceil", self)

    def __enter__(self):
        return ask("enter", self)

    def __exit__(self, kind, error, trace):
        return bool(ask("exit", self, None, None, None)) and False

    def __instancecheck__(self, v):
        return type(v) is Handle and ask("isinstance", v, self) is True

    def __iter__(self):
        found, value = base_value(self)
        if found:
            return iter(value)
        other = ask("iter", self)
        return self if type(other) is Handle and number_of(other) == number_of(self) else iter(other)

    def __reversed__(self):
        return iter(ask("reversed", self))

    def __next__(self):
        try:
            return ask("next", self)
        except RemoteError:
            if peer.told[1] == "StopIteration":
                raise StopIteration from None
            raise

    def __contains__(self, v):
        """By going through the items here: what the test looks for is not shown to the candidate's class."""
        return any(item is v or item == v for item in self)

    __eq__, __ne__, __lt__ = compared("eq"), compared("ne"), compared("lt")
    __le__, __gt__, __ge__ = compared("le"), compared("gt"), compared("ge")


for _name in (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and_",
    "or_",
    "xor",
    "lshift",
    "rshift",
):
    setattr(Handle, "__%s__" % _name.strip("_"), combined(_name, False))
    setattr(Handle, "__r%s__" % _name.strip("_"), combined(_name, True))


def names_used(trees):
    used = {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return [name for name in sorted(used) if not hasattr(builtins, name)]


def modules_used(trees, entry):
    """Library modules that tests use as such (`math.isclose`) are ours, whatever the candidate has under their
    names."""
    bases = {
        node.value.id
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    return [name for name in bases if name in STDLIB and name != entry]


def names_fetch(trees, entry):
    """What the tests use and the candidate defines. What it merely imported comes from our own library."""
    modules = modules_used(trees, entry)
    for name in modules:
        peer.space[name] = importlib.import_module(name)
    wanted = [name for name in names_used(trees) if name not in modules] + [entry]
    for name, told in peer.request("names", wanted, entry).items():
        if told[0] == "stdlib" and is_shared(told[1]):
            module = importlib.import_module(told[1])
            peer.space[name] = getattr(module, told[2]) if told[2] else module
        elif told[0] == "exception":
            base = BUILTIN_TYPES.get(told[1], Exception)
            kind = type(
                name, (base if issubclass(base, Exception) else Exception,), {"__init__": lambda self, *a: None}
            )
            peer.classes[told[2]] = peer.space[name] = kind
        elif told[0] == "entry":
            peer.space[name] = peer.object_of(b"h", told[1])
        elif told[0] == "value":
            peer.space[name] = told[1]
    if entry in peer.space:
        peer.space.setdefault("candidate", peer.space[entry])  # some asserts call it by this name


def judged(work):
    """(verdict, reason) of one piece of test code."""
    peer.told, peer.remotes = None, []
    try:
        work()
        return "pass", ""
    except Gone:
        raise
    except BaseException as error:
        error.__traceback__ = None
        if peer.told and any(error is e or error.__context__ is e for e in peer.remotes):
            return peer.told[0], (peer.told[1] + ": " + peer.told[2])[:400]
        if isinstance(error, AssertionError):
            return "wrong-answer", "an assert failed"
        if isinstance(error, Broken):
            return "runtime-error", "the program broke the channel"
        try:
            text = str(error)[:300]
        except BaseException:
            text = ""
        return "runtime-error", (type(error).__name__ + ": " + text)[:400]


def tests_parse(job):
    """(setup, [asserts]) as trees; check becomes one test. None when the row itself is unusable."""
    try:
        setup = ast.parse(job.get("setup") or "", "setup")
        if job.get("check") is not None:
            call = "\ncheck(%s)\n" % job["entry_point"]
            return setup, [ast.parse(job["check"] + call, "check")]
        return setup, [ast.parse(text, "assert") for text in job["asserts"]]
    except (SyntaxError, ValueError, TypeError, KeyError):
        return None


def tests_run(job, results):
    parsed = tests_parse(job)
    if not parsed or not parsed[1]:
        return "unusable"
    setup, tests = parsed
    if peer.receive() != b"L":
        raise Broken("no greeting")
    entry = job.get("entry_point") or ""
    verdict, reason = judged(lambda: names_fetch([setup] + tests, entry))
    if verdict == "pass":
        verdict, reason = judged(lambda: exec(compile(setup, "setup", "exec"), peer.space))
    for tree in tests:
        start = time.monotonic()
        if verdict == "pass":
            one = judged(lambda: exec(compile(tree, "tests", "exec"), peer.space))
        else:
            one = (verdict, reason)
        results.append((one[0], time.monotonic() - start, one[1]))
    return "judged"


def outputs_check(job, results):
    """A custom checker: code that defines checker(stdin, output, expected). The candidate is long gone."""
    space = {"__name__": "checker"}
    try:
        exec(compile(job["checker"], "checker", "exec"), space)
    except Exception:
        return "unusable"
    for case in job["cases"]:
        try:
            right = bool(space["checker"](case["stdin"], case["output"], case["expected"]))
        except Exception:
            right = False
        results.append(
            ("pass" if right else "wrong-answer", 0.0, "" if right else "the checker refused the output")
        )
    return "judged"


def run_judge(fds):
    """One row: reads it from the payload, writes the verdict. The next row finds nothing of it."""
    global peer
    job = json.loads(os.pread(fds[3], os.fstat(fds[3]).st_size, 0))
    results, state = [], "gone"
    sys.setrecursionlimit(6000)
    random.seed(0)
    sys.stdout = sys.stderr  # what tests print has no place to go
    try:
        if "checker" in job:
            state = outputs_check(job, results)
        else:
            peer = JudgePeer(fds[0], bytes.fromhex(job["token"]))
            state = tests_run(job, results)
    except Gone:
        pass
    except Broken as error:
        results.append(("runtime-error", 0.0, "the program broke the channel: " + str(error)))
        state = "judged"
    peer = None
    out = json.dumps({"nonce": job["nonce"], "state": state, "results": results}).encode()
    at = 0
    while at < len(out):
        at += os.write(fds[1], out[at:])


def warm_up():
    pass
