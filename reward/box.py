"""box.py: the warm Python that forks one cell per run. Runs inside the namespaces that sandbox.c made.

A request comes over the control socket with the descriptors of the run: 0, 1, 2 and the payload. Each run gets
a cell: its own PID and mount namespace and its own /tmp of limited size. Process 1 of the cell is the keeper:
it reaps, and by ending takes every process of the cell with it. Process 2, the run, is a fork of this Python;
it puts on the jail (limits, Landlock, no capabilities, system call filter) and only then touches what it was
given. This file never sees a test: it and the candidate share one memory. Tested by
tests/test_reward_sandbox.c.
"""

import array, ctypes, gc, io, json, os, random, resource, signal, socket, struct, sys, time

# What candidates import most. Each megabyte more makes every fork a fifth of a millisecond dearer.
import bisect, collections, copy, functools, heapq, itertools, math, operator, re, string, threading
import types, typing

CLONE_VM, CLONE_NEWNS, CLONE_NEWPID = 0x100, 0x20000, 0x20000000
CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID = 0x200000, 0x1000000
SYS_CLONE, SYS_CAPSET, SYS_EXECVEAT, SYS_PIDFD_OPEN = 56, 126, 322, 434
SYS_LANDLOCK = 444
PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS = (
    4,
    15,
    22,
    24,
    28,
    38,
)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_GET_TID_ADDRESS = 1, 36, 40
EXIT_MEMORY, EXIT_PROCESSES, EXIT_COMPILE = 81, 82, 83  # how a run names its end; all of them are failures

# PyDLL keeps the interpreter lock: nothing else runs in these processes, and a raw clone must not give it up.
libc = ctypes.PyDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def must(result, what):
    if result < 0:
        raise OSError(ctypes.get_errno(), what + ": " + os.strerror(ctypes.get_errno()))
    return result


def syscall(number, *args):
    return libc.syscall(
        ctypes.c_long(number),
        *[a if isinstance(a, (bytes, ctypes.Array, ctypes.Structure)) else ctypes.c_void_p(a) for a in args],
    )


class Box:
    """What holds for every cell of this box: read once from the first message of the worker."""

    def __init__(self, conf):
        self.control = socket.socket(fileno=3)
        self.namespaces = conf["namespaces"]  # False: no PID and mount namespaces of our own (weak)
        self.own_pid_ns = 4 if self.namespaces else -1
        self.setuid = conf["setuid"]  # the identity to take where there is no user namespace, or 0
        self.tmp = conf["tmp"]
        self.home = self.tmp if self.namespaces else os.path.join(self.tmp, "cell")
        self.landlock = syscall(SYS_LANDLOCK, 0, 0, 1) if conf["landlock"] else 0  # the ABI, or < 1
        code = bytes.fromhex(conf["filter"])
        self.filter_code = ctypes.create_string_buffer(code, len(code))
        self.filter = ctypes.create_string_buffer(
            struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(self.filter_code)), 16
        )
        self.stack = ctypes.create_string_buffer(32 << 10)  # of the keeper
        self.stack_top = (ctypes.addressof(self.stack) + len(self.stack)) & ~15
        address = ctypes.c_uint64(0)
        libc.prctl(PR_GET_TID_ADDRESS, ctypes.byref(address), 0, 0, 0)
        self.tid_address = address.value
        self.rules = landlock_rules(self) if self.landlock >= 1 else -1


READABLE = (
    "/usr",
    "/lib",
    "/lib64",
    "/lib32",
    "/bin",
    "/sbin",
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/passwd",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
)


def lower_privileges():
    """Once per box: what the children inherit. Our own effective capabilities stay: cells need them to be
    made."""
    must(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the keeper must have no handlers: a run may signal it
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 256),
        (resource.RLIMIT_STACK, 64 << 20),
    ):
        resource.setrlimit(what, (most, most))
    if libc.prctl(PR_SET_SECUREBITS, 0x2F, 0, 0, 0) == 0:  # root is nobody special, locked
        for cap in range(64):
            libc.prctl(PR_CAPBSET_DROP, cap, 0, 0, 0)


def landlock_rules(box):
    """Only the system may be read and only the cell's folder written; no connections, no signals or sockets
    outward. The rule for the cells stands at the folder above their /tmp: a rule below a mount point would not
    be seen.
    """
    abi = box.landlock
    fs = (1 << (13 if abi == 1 else 14 if abi == 2 else 15 if abi < 5 else 16)) - 1
    attr = struct.pack("QQQ", fs, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    rules = must(syscall(SYS_LANDLOCK, attr, 8 if abi < 4 else 16 if abi < 6 else 24, 0), "landlock ruleset")
    above = os.path.dirname(box.tmp) if box.namespaces else box.tmp
    for path in filter(os.path.exists, READABLE + (above,)):
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        allowed = fs if path == above else 0b1101 if os.path.isdir(path) else 0b111
        must(syscall(SYS_LANDLOCK + 1, rules, 1, struct.pack("=Qi", allowed, fd), 0), "landlock rule")
        os.close(fd)
    return rules


def jail_wear(box, limits):
    """The last steps before a run: after this nothing can be taken back. What is the same for all runs was done
    by lower_privileges; here every line costs each candidate."""
    for what, most in (
        (resource.RLIMIT_AS, limits["as"]),
        (resource.RLIMIT_CPU, limits["cpu"]),
        (resource.RLIMIT_FSIZE, limits["file"]),
    ):
        resource.setrlimit(what, (most, most))
    if box.setuid:
        os.setgroups([])
        os.setresgid(box.setuid, box.setuid, box.setuid)
        os.setresuid(box.setuid, box.setuid, box.setuid)
    resource.setrlimit(resource.RLIMIT_NPROC, (limits["procs"] + limits.get("others", 2),) * 2)
    must(syscall(SYS_CAPSET, struct.pack("Ii", 0x20080522, 0), bytes(24)), "capset")
    must(libc.prctl(PR_SET_SECCOMP, 2, box.filter, 0, 0), "seccomp")


def descriptors_take(fds):
    """0, 1 and 2 from the request, the payload at 3, the control socket at 4 until the jail is on; all else
    closed."""
    control = os.dup(3)
    for fd in fds:
        if fd <= 4:
            raise OSError("descriptor in the way")
    for to, fd in enumerate(fds):
        os.dup2(fd, to, inheritable=to < 3)
    os.dup2(control, 4, inheritable=False)
    os.closerange(5, 1 << 20)


def payload_read():
    size = os.fstat(3).st_size
    data = bytearray()
    while len(data) < size:
        data += os.pread(3, size - len(data), len(data))
    os.close(3)
    return bytes(data)


def signals_default():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a refused write is an error to the program, not its death


def run_exec(request):
    """A compiled program: the payload is the program itself, which is never a file of this system."""
    signals_default()
    argv = (ctypes.c_char_p * 2)(b"main", None)
    envp = (ctypes.c_char_p * 4)(
        b"PATH=/usr/bin:/bin", b"HOME=" + os.environ["HOME"].encode(), b"LANG=C.UTF-8", None
    )
    syscall(SYS_EXECVEAT, 3, b"", argv, envp, 0x1000)
    os._exit(127)


def run_compile(request):
    """The compiler: a source comes in, the program goes out by descriptor 1, what it says by 2."""
    source = payload_read()
    name = "main." + request["suffix"]
    with open(name, "wb") as file:
        file.write(source)
    signals_default()
    out = os.dup(1)
    os.set_inheritable(out, False)
    os.dup2(2, 1)
    child = os.posix_spawn(
        request["argv"][0],
        request["argv"] + ["-o", "main.out", name] + request["libs"],
        dict(os.environ, TMPDIR=os.getcwd()),
    )
    status = os.waitpid(child, 0)[1]
    if status:
        os._exit(EXIT_COMPILE)
    with open("main.out", "rb") as file:
        left = os.fstat(file.fileno()).st_size
        while left:
            left -= os.sendfile(out, file.fileno(), None, left)
    os._exit(0)


def cell_furnish(box, limits):
    """The cell's own /tmp. Without a mount namespace: a folder, removed by cell_clear."""
    if box.namespaces:
        must(libc.unshare(CLONE_NEWNS), "unshare mounts")
        size = b"size=%d,nr_inodes=2048,mode=1777" % limits["tmp"]
        must(libc.mount(b"tmp", box.home.encode(), b"tmpfs", ctypes.c_ulong(2 | 4 | 8), size), "mount tmp")
    else:
        os.mkdir(box.home, 0o700)
        if box.setuid:
            os.chown(box.home, box.setuid, box.setuid)
    os.chdir(box.home)
    if box.rules >= 0:  # here, because after it nothing can be mounted
        must(syscall(SYS_LANDLOCK + 2, box.rules, 0), "landlock")


def cell_run(box, request, fds):
    """The run's process, from its birth on. What fails before the jail is on is the sandbox's failure, and it
    is told by the control socket: an exit status could be the candidate's."""
    control = 3
    try:
        box.control.send(b"R")  # the kernel adds our process id, as the worker sees it
        if not box.namespaces:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        cell_furnish(box, request["limits"])
        descriptors_take(fds)
        control = 4
        os.setpgid(0, 0)  # a signal to its own group stays in the cell; a session more would cost more
        random.seed()
        run = RUNS[request["kind"]]
        jail_wear(box, request["limits"])
    except BaseException as error:
        os.write(control, b"E " + repr(error).encode()[:400])
        os._exit(125)
    try:
        os.close(4)
        run(request)
    except BaseException as error:
        os.write(2, repr(error).encode("utf-8", "replace"))
    os._exit(125)


def cell_clear(box):
    """Without namespaces: kills what the cell left, as often as it takes, and removes its folder."""
    while True:
        try:
            with open("/proc/thread-self/children") as file:
                for pid in file.read().split():
                    os.kill(int(pid), signal.SIGKILL)
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
        except ProcessLookupError:
            continue
    __import__("shutil").rmtree(box.home, ignore_errors=True)


def keeper_start(box):
    """Process 1 of a new PID namespace. It shares our memory, so that making it costs nothing, and touches none
    of it: all it does is pause(), with SIGCHLD ignored so that the kernel reaps. When it dies, its whole
    namespace dies.
    """
    must(libc.setns(box.own_pid_ns, CLONE_NEWPID), "setns")
    libc.signal(signal.SIGCHLD, ctypes.c_void_p(1))
    keeper = libc.clone(
        ctypes.cast(libc.pause, ctypes.c_void_p),
        ctypes.c_void_p(box.stack_top),
        CLONE_VM | CLONE_NEWPID | signal.SIGCHLD,
        None,
    )
    libc.signal(signal.SIGCHLD, ctypes.c_void_p(0))
    must(keeper, "clone")
    fd = must(syscall(SYS_PIDFD_OPEN, keeper, 0), "pidfd")
    must(libc.setns(fd, CLONE_NEWPID), "setns")  # of the children that we make from now on
    os.close(fd)
    box.control.sendmsg([b"K"], [(socket.SOL_SOCKET, 2, struct.pack("iII", keeper, os.getuid(), os.getgid()))])
    return keeper


def others_count():
    """Without a user namespace the limit of processes counts all that this user has: so many threads there
    are."""
    count = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/status" % name) as file:
                fields = dict(line.split(":", 1) for line in file)
            count += int(fields["Threads"]) if int(fields["Uid"].split()[0]) == os.getuid() else 0
        except (OSError, KeyError):
            pass
    return count


def cell_start(box, request, fds):
    """One run, to its end. The raw clone does what fork() does, without the interpreter's work around it."""
    keeper = keeper_start(box) if box.namespaces else 0
    if not box.namespaces and not box.setuid:
        request["limits"]["others"] = others_count()  # else they are two: the box and the keeper
    pid = syscall(
        SYS_CLONE, CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | signal.SIGCHLD, 0, 0, box.tid_address, 0
    )
    if pid == 0:
        cell_run(box, request, fds)
    for fd in fds:
        os.close(fd)
    if pid > 0:
        _, status, usage = os.wait4(pid, 0)
        box.control.send(b"X %d %.6f %d" % (status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss))
    else:
        box.control.send(b"E cannot fork: " + os.strerror(ctypes.get_errno()).encode())
    if keeper:
        os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)
    else:
        cell_clear(box)
    box.control.send(b"D 0")


def judge_start(box, limits):
    """The judge is one process for many rows: what it runs comes from the data set. It wears the same jail,
    once."""
    cell_furnish(box, limits)
    os.setsid()
    jail_wear(box, limits)


def judge_serve(box, request, fds):
    box.control.send(b"R")
    run_judge(fds)
    for fd in fds:
        os.close(fd)
    box.control.send(b"D 0")


def box_main():
    control = socket.socket(fileno=3)
    conf = json.loads(control.recv(1 << 17))
    control.detach()
    box = Box(conf)
    serve = cell_start
    if not box.namespaces:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    lower_privileges()
    sys.argv, sys.orig_argv = ["main.py"], ["python3"]
    os.environ.clear()
    os.environ.update(PATH="/usr/bin:/bin", HOME=box.home, LANG="C.UTF-8")
    libc.prctl(PR_SET_NAME, b"whet-judge" if "judge" in conf else b"whet-box", 0, 0, 0)
    if "judge" in conf:
        judge_start(box, conf["judge"])
        serve = judge_serve
    warm_up()
    gc.collect()
    gc.freeze()
    libc.malloc_trim(0)
    box.control.send(b"B")
    while True:
        data, ancillary, _, _ = box.control.recvmsg(1 << 16, socket.CMSG_SPACE(16 * 4))
        if not data:
            os._exit(0)
        fds = array.array("i")
        for level, kind, part in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(part)
        serve(box, json.loads(data), list(fds))


RUNS = {"exec": run_exec, "compile": run_compile}
