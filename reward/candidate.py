"""candidate.py: runs the candidate's Python in process 2 of its cell. Knows no test and no expected value.

run_script: a whole program with stdin and stdout. run_serve: loads the code, then does what the judge's process
asks over the channel at descriptor 0 (calls, attributes, items), values by the codec of wire.py. All here may
be patched, traced or killed by the candidate: the worst that it can do is spoil its own answer.
"""

import atexit

os_exit = os._exit


def module_make(name):
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = builtins
    sys.modules[name] = module
    return module


def exit_status(error):
    """How the run ends for an exception that nothing caught, after telling stderr as Python does."""
    if isinstance(error, SystemExit):
        code = error.code
        if code is None or isinstance(code, int):
            return (code or 0) & 0xFF
        sys.stderr.write(str(code) + "\n")
        return 1
    try:
        sys.__excepthook__(type(error), error, error.__traceback__.tb_next if error.__traceback__ else None)
    except BaseException:
        pass
    return {"memory-limit": EXIT_MEMORY, "process-limit": EXIT_PROCESSES}.get(limit_of(error), 1)


def limit_of(error):
    """The limit that an exception tells of, or ""."""
    if isinstance(error, MemoryError) or isinstance(error, OSError) and error.errno == 12:
        return "memory-limit"
    if (
        isinstance(error, BlockingIOError)
        or type(error) is RuntimeError
        and error.args[:1] == ("can't start new thread",)
    ):
        return "process-limit"
    return "output-limit" if isinstance(error, Oversize) else ""


def streams_make():
    """The streams of a run, made once: they are bound to the numbers 0, 1 and 2, not to what is behind them
    now."""
    ends = os.pipe()
    os.dup2(ends[1], 1), os.dup2(
        ends[1], 2
    )  # pipes while the streams are made, which look at what they stand on
    os.close(ends[0]), os.close(ends[1])
    sys.stdin = io.TextIOWrapper(open(0, "rb", closefd=False), encoding="utf-8", errors="surrogateescape")
    sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), encoding="utf-8", errors="surrogateescape")
    sys.stderr = io.TextIOWrapper(
        open(2, "wb", closefd=False), encoding="utf-8", errors="backslashreplace", line_buffering=True
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr


def warm_up():
    """Runs what every candidate runs, so that it is compiled, cached and specialised before the first fork."""
    streams_make()
    for _ in range(20):
        module_run(b"import sys\nx = 1\ndef f(a): return a\ny = f(x)\n", "warm")
        peer = CandidatePeer(0, bytes(8))
        Decoder(peer, peer.encode(("call", [1, 2.5, "a", None, True, (3,), {"k": 4}], {}))).value()
    del sys.modules["warm"]


def module_run(source, name):
    """(its names, None), or (None, the exit status that its end asks for)."""
    try:
        code = compile(source, "main.py", "exec", dont_inherit=True)
    except BaseException as error:
        exit_status(error)
        return None, EXIT_MEMORY if isinstance(error, MemoryError) else EXIT_COMPILE
    space = module_make(name).__dict__
    try:
        exec(code, space)
    except BaseException as error:
        return None, exit_status(error)
    return space, None


def run_script(request):
    source = payload_read()
    space, status = module_run(source, "__main__")
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
    except BaseException as error:
        status = status or exit_status(error)
    try:
        sys.stdout.flush()
    except BaseException as error:
        status = status or exit_status(error)
    os_exit(status or 0)


def stdlib_place(v):
    """(module, name) where v is a public thing of a module that both sides have, else None. The judge then uses
    its own: a candidate's `isclose` that is not math's must never decide an assert."""
    if type(v) is types.ModuleType:
        module, name = v.__name__, ""
    else:
        module, name = getattr(v, "__module__", None), getattr(v, "__name__", None)
        if (
            type(name) is not str
            or type(module) is not str
            or getattr(sys.modules.get(module), name, None) is not v
        ):
            return None
    return (module, name) if is_shared(module) else None


class CandidatePeer(Peer):
    def handle_of(self, v):
        if type(v) is JudgeHandle:
            return b"k", object.__getattribute__(v, "_number")
        return b"h", self.export(v)

    def object_of(self, tag, number):
        return JudgeHandle(self, number) if tag == b"h" else self.objects[number]

    def describe(self, error):
        """(builtin class, text, numbers of its classes that the judge may know, limit that was hit)"""
        kind = type(error)
        base = next(c.__name__ for c in kind.__mro__ if BUILTIN_TYPES.get(c.__name__) is c)
        known = [self.numbers[id(c)] for c in kind.__mro__ if id(c) in self.numbers]
        try:
            text = str(error)[:300]
        except BaseException:
            text = ""
        return (base, text, known, limit_of(error))

    def remote(self, told):
        kind = BUILTIN_TYPES.get(told[0], Exception)
        return kind(told[1]) if issubclass(kind, Exception) else Exception(told[1])

    def serve(self, op, args):
        return OPS[op](self, *args)

    def names(self, wanted, entry):
        found = {}
        for name in wanted:
            if name not in self.space:
                continue
            v = self.space[name]
            place = stdlib_place(v) if name != entry else None
            if place:
                found[name] = ("stdlib",) + place
            elif isinstance(v, type) and issubclass(v, BaseException):
                base = next(c.__name__ for c in v.__mro__ if BUILTIN_TYPES.get(c.__name__) is c)
                found[name] = ("exception", base, self.export(v))
            elif name == entry:
                found[name] = ("entry", self.export(v), callable(v))
            else:
                found[name] = ("value", v)
        return found

    def own_value(self, v):
        """(True, plain value) of an object whose class derives from a plain type, by that type's own
        methods."""
        for kind in (int, float, str, list, tuple, dict, set, frozenset, bytes, bytearray, complex):
            if isinstance(v, kind):
                if kind is dict:
                    return True, dict(dict.items(v))
                if kind in (list, tuple, set, frozenset):
                    return True, kind(kind.__iter__(v))
                if kind is str:
                    return True, str.__str__(v)
                return True, kind.__add__(v, kind())
        return False, None

    def compare(self, name, a, b):
        return getattr(operator, name)(a, b)


class JudgeHandle:
    """A thing of the tests that was passed in: a function to call, or an object of a class that they define."""

    __slots__ = ("_peer", "_number")

    def __init__(self, peer, number):
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_number", number)

    def __call__(self, *args, **kwargs):
        return self._peer.request("call", self, args, kwargs)

    def __getattr__(self, name):
        return self._peer.request("get", self, name)

    def __setattr__(self, name, value):
        self._peer.request("set", self, name, value)

    def __eq__(self, other):
        return self is other or self._peer.request("op", "eq", self, other)

    def __hash__(self):
        return self._number

    def __len__(self):
        return self._peer.request("op", "len", self)

    def __iter__(self):
        return iter(self._peer.request("items", self))

    def __getitem__(self, key):
        return self._peer.request("op", "getitem", self, key)

    def __lt__(self, other):
        return self._peer.request("op", "lt", self, other)

    def __bool__(self):
        return True


def op_apply(peer, name, *args):
    return UNARY[name](*args) if name in UNARY else getattr(operator, name)(*args)


UNARY = {
    "len": len,
    "iter": iter,
    "next": next,
    "bool": bool,
    "str": str,
    "repr": repr,
    "int": int,
    "float": float,
    "complex": complex,
    "hash": hash,
    "format": format,
    "reversed": reversed,
    "round": round,
    "divmod": divmod,
    "enter": lambda v: type(v).__enter__(v),
    "exit": lambda v, *a: type(v).__exit__(v, *a),
    "dir": dir,
    "isinstance": isinstance,
    "issubclass": issubclass,
    "trunc": math.trunc,
    "floor": math.floor,
    "ceil": math.ceil,
    "bytes": bytes,
}
OPS = {
    "call": lambda peer, f, args, kwargs: f(*args, **kwargs),
    "get": lambda peer, v, name: getattr(v, name),
    "set": lambda peer, v, name, value: setattr(v, name, value),
    "del": lambda peer, v, name: delattr(v, name),
    "names": CandidatePeer.names,
    "op": op_apply,
    "value": CandidatePeer.own_value,
    "compare": CandidatePeer.compare,
}


def run_serve(request):
    data = payload_read()
    peer = CandidatePeer(0, data[:8])
    sys.stdin = sys.__stdin__ = io.StringIO("")
    os.set_inheritable(0, False)  # the channel is for us, not for programs that the candidate starts
    peer.space, status = module_run(data[8:], "solution")
    if status is not None:
        os_exit(status or 1)
    peer.send(b"L")
    try:
        while True:
            peer.answer(peer.receive())
    except Gone:
        os_exit(0)


RUNS.update(script=run_script, serve=run_serve)
