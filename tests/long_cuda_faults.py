#!/usr/bin/env python3
"""long_cuda_faults.py: faults planted in the CUDA back, one at a time, and the check that catches each.

A fault is a replacement in one source file; where the text is not there any more, the test fails, so that the table stays
true. Kernels are compiled to PTX again (and where their host side changed, to an object), C files with gcc; then the
tests of the ops run on the stand-ins: with the interpreter's checks, or WRONG where an op differs from the CPU's. Each fault
must be caught by the check that its row names, and nothing may complain where none is planted. Two run at a time.
`long_cuda_faults.py NAME...` runs these alone and shows what they said. Ends with N passed, N failed."""
import concurrent.futures
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ATTEND, BACK, SHARED, DEVICE = "attend.cu", "attend_back.cu", "attend.h", "device.h"

# name, file of kernels/cuda, what is there, what is put there, the check that finds it, kind: "ptx" (kernels alone), "cu" (their
# host side too), "c". Of several equal places the first is meant.
FAULTS = [
    # barriers
    ("missing barrier before a tile is refilled", ATTEND, "        __syncthreads(); /* the block's room is refilled next */", "",
     "race-shared", "ptx"),
    ("missing barrier after cp.async's wait", ATTEND, "        ptx_wait<1>();\n        __syncthreads();", "        ptx_wait<1>();",
     "race-shared", "ptx"),
    ("missing barrier before a stage is read and another refilled, backward", BACK, "        __syncthreads(); /* the stage is there; the other's room is refilled next */",
     "", "race-shared", "ptx"),
    ("missing barrier before scores are read", BACK, "        __syncthreads(); /* the scores are there */", "", "race-shared|uninit-shared", "ptx"),
    ("missing barrier between two spans", BACK, "    __syncthreads(); /* the next span refills the rooms */", "", "race-shared", "ptx"),
    ("missing barrier in the product of gradients", "gemm.cu", "        __syncthreads(); /* the stage is there; that before it is refilled next */", "",
     "race-shared", "ptx"),
    ("missing barrier before a reduction's room is used again", DEVICE, "    __syncthreads(); /* the room's last use is over */\n", "",
     "race-shared", "ptx"),
    ("missing barrier inside a reduction", DEVICE, "= x;\n    __syncthreads();\n", "= x;\n", "race-shared|uninit-shared", "ptx"),
    ("missing __syncwarp after a row was put into shared memory", ATTEND, "    __syncwarp();\n", "", "race-shared|uninit-shared", "ptx"),
    ("a warp returns before a barrier", ATTEND, "    chains_load(q, a.q,", "    if (mine >= chains) return;\n    chains_load(q, a.q,",
     "barrier", "ptx"),
    ("a barrier that not every warp reaches", ATTEND, "        __syncthreads(); /* the block's room is refilled next */",
     "        if (mine < chains) __syncthreads();", "barrier|race-shared", "ptx"),
    # cp.async
    ("stale cp.async: the wait is one group too lax", ATTEND, "ptx_wait<1>();", "ptx_wait<2>();", "cp-async", "ptx"),
    ("stale cp.async in the product of gradients", "gemm.cu", "ptx_wait<STAGES - 2>();", "ptx_wait<STAGES - 1>();", "cp-async", "ptx"),
    ("cp.async of a row past the last", "gemm.cu", "row0 + row < x.rows && left > 0", "row0 + row <= x.rows && left > 0",
     "bounds-global|WRONG|uninit-global", "ptx"),
    # lanes
    ("a shuffle whose mask names half of the warp", ATTEND, "__shfl_xor_sync(ALL_LANES, top, 1)", "__shfl_xor_sync(0xffffu, top, 1)",
     "divergent", "ptx"),
    ("a shuffle in a branch that half of the warp takes", BACK, "        sum = warp_sum(sum);", "        if (lane < 16) sum = warp_sum(sum);",
     "divergent", "ptx"),
    ("a reduction that forgets a step", DEVICE, "for (int lane = 16; lane; lane /= 2) x += ", "for (int lane = 8; lane; lane /= 2) x += ",
     "WRONG", "ptx"),
    # tensor cores
    ("swapped mma operands: the halves of b", "ptx.h", '"r"(b0), "r"(b1)', '"r"(b1), "r"(b0)', "WRONG", "ptx"),
    ("swapped mma operands: the quarters of a", "ptx.h", '"r"(a[1]), "r"(a[2])', '"r"(a[2]), "r"(a[1])', "WRONG", "ptx"),
    ("ldmatrix without its transposition", "ptx.h", "m8n8.x4.trans.shared", "m8n8.x4.shared", "WRONG", "ptx"),
    ("rows of a tile that lie 8 bytes off", SHARED, "return p + row * STEP + col;", "return p + row * STEP + col + 4;", "misaligned", "ptx"),
    # indices, masks, bounds
    ("wrong mask: a key does not see itself", SHARED, "key <= pos &&", "key < pos &&", "WRONG", "ptx"),
    ("wrong mask: the window is one too wide", SHARED, "key > pos - window", "key >= pos - window", "WRONG", "ptx"),
    ("a shared index that is off by one", DEVICE, "room[threadIdx.x / 32] = x", "room[threadIdx.x / 32 + 1] = x",
     "uninit-shared|bounds-shared|race-shared", "ptx"),
    ("columns past a row's end are written", DEVICE, "            if (col + i < t.cols) set1(", "            set1(",
     "bounds-global|WRONG|race-global", "ptx"),
    ("columns past a row's end are read", DEVICE, "col + i < t.cols ? get1(t, row, col + i) : 0", "get1(t, row, col + i)",
     "bounds-global|WRONG|uninit-global", "ptx"),
    ("a sum in shared memory that is not cleared", "head.cu", "    if (threadIdx.x == 0) *to = 0;\n", "", "uninit-shared", "ptx"),
    ("keys and values of a page change places", SHARED, "* 2 + value) * KV_PAGE", "* 2 + 1 - value) * KV_PAGE", "WRONG", "ptx"),
    ("the rotation turns the other way", ATTEND, "return low ? a * c - b * s", "return low ? a * c + b * s", "WRONG", "ptx"),
    ("padding rows stay as they are", SHARED, "__shfl_sync(ALL_LANES, page, i) >= 0", "__shfl_sync(ALL_LANES, page, i) >= -1", "WRONG|uninit-global", "ptx"),
    ("a hash whose stripes are mixed with one key", "rows.cu", "secret[stripe + lane]", "secret[lane]", "WRONG", "ptx"),
    ("all blocks write one place", "head.cu", "parts[(size_t)row * blocks + h.col0 / HEAD_BLOCK + blockIdx.y] =",
     "parts[(size_t)row * blocks + h.col0 / HEAD_BLOCK] =", "race-global", "ptx"),
    ("a sum whose order the threads decide", "head.cu", "u64 whole_of(float z, float max) { return (u64)((double)d_exp(z - max) * 0x1p44); }",
     "u64 whole_of(float z, float max) { return (u64)((double)d_exp(z - max) * 0x1p4); }", "WRONG", "ptx"),
    # launches
    ("grid too small: the last tile is left out", "gemm.cu", "blocks_of((size_t)dw.rows, PLAIN)", "(unsigned)(dw.rows / PLAIN + (dw.rows < PLAIN))",
     "WRONG", "cu"),
    ("a launch on another stream", "gemm.cu", "dw_plain_kernel<<<grid, THREADS, 0, s>>>", "dw_plain_kernel<<<grid, THREADS, 0, 0>>>",
     "WRONG|uninit-global", "cu"),
    ("shared memory too small", BACK, "2 * KEYS * Tile<n>::STEP) * sizeof(bf16)", "KEYS * Tile<n>::STEP) * sizeof(bf16)", "bounds-shared", "cu"),
    ("more shared memory than was asked for", "gemm.cu", "        cudaFuncSetAttribute(dw_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);\n",
     "", "limit", "cu"),
    ("more threads than the launch bounds", BACK, "delta_kernel<<<(unsigned)o.rows, THREADS, 0, s>>>", "delta_kernel<<<(unsigned)o.rows, 2 * THREADS, 0, s>>>",
     "limit", "cu"),
    # the host side
    ("wrong leading dimension", "lt.c", "lt->MatrixLayoutCreate(&call.y, data_type(o->y.type), m, n, o->y.stride)",
     "lt->MatrixLayoutCreate(&call.y, data_type(o->y.type), m, n, o->y.cols)", "cublas|WRONG", "c"),
    ("wrong transposition", "lt.c", "o->back ? CUBLAS_OP_N : CUBLAS_OP_T", "o->back ? CUBLAS_OP_T : CUBLAS_OP_N", "cublas", "c"),
    ("an operand that is less aligned than promised", "lt.c", "align = 16", "align = 256", "cublas", "c"),
    ("an algorithm that sums few rows otherwise than many", "lt.c", "!splits(lt, &found[i].algo) && same_bits(dev, &o, &found[i].algo)",
     "!splits(lt, &found[i].algo) && run(dev, &o, &found[i].algo) == CUBLAS_STATUS_SUCCESS && !same_bits(dev, &o, &found[i].algo)",
     "WRONG", "c"),
    ("an error that the library left is taken for a launch's", "lt.c", "        cudaGetLastError(); /* it may leave", "        (void)0; /* it may leave",
     "status 1", "c"),
    ("missing wait: pinned memory is written while a copy reads it", "cuda.c",  # with a ring of one, which turns at once
     ("cuda->next = (cuda->next + 1) % UPLOADS;", '    if (up->used) cuda_must(cudaEventSynchronize(up->done), "upload");\n'),
     ("cuda->next = 0;", ""), "pending", "c"),
    ("the event is recorded before the copy", "cuda.c",
     ("cuda->next = (cuda->next + 1) % UPLOADS;",
      '    if (bytes) cuda_must(cudaMemcpyAsync(to, up->host, bytes, cudaMemcpyHostToDevice, cuda->stream), "upload");\n'
      '    cuda_must(cudaEventRecord(up->done, cuda->stream), "upload");\n'),
     ("cuda->next = 0;",
      '    cuda_must(cudaEventRecord(up->done, cuda->stream), "upload");\n'
      '    if (bytes) cuda_must(cudaMemcpyAsync(to, up->host, bytes, cudaMemcpyHostToDevice, cuda->stream), "upload");\n'), "pending", "c"),
    ("the host reads device memory", "cuda.c", "static void cuda_get(Dev *dev, void *host, Ten src) {\n",
     "static void cuda_get(Dev *dev, void *host, Ten src) {\n    if (src.cols > 1) memcpy(host, src.p, 1);\n", "host-memory", "c"),
    ("memory is used after it was freed", "cuda.c", '    graphs_drop(dev->cuda->graphs); /* one may use it */\n    cuda_must(cudaFree(t.p), "free");',
     '    cuda_must(cudaFree(t.p), "free");\n    cuda_must(cudaMemsetAsync(t.p, 0, 1, dev->cuda->stream), "free");', "freed", "c"),
    ("memory that is not cleared", "cuda.c", '    cuda_must(cudaMemsetAsync(t.p, 0, bytes, dev->cuda->stream), "memset");\n', "    (void)dev;\n", "uninit-global|WRONG", "c"),
    ("the host reads sums of a hash that are under way", "hash.c", "    s->dev->ops->sync(s->dev);\n", "", "pending|WRONG", "c"),
    # steps that come again
    ("a step's launches are kept with an address that moves", "cuda.c",
     ("{rows->spans, spans}, {rows->shares, shares}, {rows->table, table}", "there.spans = (const KvSpan *)(const void *)(to + starts[3])",
      "there.shares = (const KvShare *)(const void *)(to + starts[4])", "there.table = (const int *)(const void *)(to + starts[5])"),
     ("{rows->table, table}, {rows->spans, spans}, {rows->shares, shares}", "there.spans = (const KvSpan *)(const void *)(to + starts[4])",
      "there.shares = (const KvShare *)(const void *)(to + starts[5])", "there.table = (const int *)(const void *)(to + starts[3])"),
     "WRONG|bounds-global|uninit-global", "c"),
    ("a step's launches are kept and its rows are not sent", "graph.c", "    rows_on(dev, rows);\n", "    if (!step->exec) rows_on(dev, rows);\n",
     "WRONG", "c"),
    ("a step is known by its rows alone", "graph.c", "    memcpy(want.key, key, n);\n", "    (void)key;\n", "WRONG", "c"),
    ("a step is known without its padding", "graph.c", "want.padding |= rows->page[r] < 0", "want.padding |= rows->page[r] < -1", "WRONG", "c"),
    ("a step's launches use memory that was freed", "cuda.c", "    graphs_drop(dev->cuda->graphs); /* one may use it */\n", "", "freed", "c"),
    ("a step is recorded and not run", "graph.c", '    cuda_must(cudaGraphDestroy(graph), "graph");\n    cuda_must(cudaGraphLaunch(step->exec, cuda->stream), "graph");\n',
     '    cuda_must(cudaGraphDestroy(graph), "graph");\n', "WRONG", "c"),
    ("a step is recorded before it ran once", "graph.c", "        *step = (struct Step){.key = want};\n        return true;\n", "        *step = (struct Step){.key = want};\n",
     "status 1", "c"),
    ("tiles of empty spans are left out of a step's launches", "ops_attend.c", "a.items = rows->n_spans * a.tiles;",
     "a.items = 0;\n        for (int i = 0; i < rows->n_spans; i++) a.items += rows->spans[i].n * a.tiles;", "WRONG", "c"),
    ("a copy that is one row too long", "cuda.c", "wide, (size_t)shape.rows, kind", "wide, (size_t)shape.rows + (shape.rows > 1), kind",
     "bounds-global|WRONG|uninit-global", "c"),
]


def make_variable(name):
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(["make", "-s", "--no-print-directory", "CUDA=1", "print-" + name], cwd=ROOT, env=env, check=True, text=True,
                          stdout=subprocess.PIPE).stdout.strip()


NAMES = ("NVCC", "NVCCFLAGS", "CUDA_HOME", "CC", "CFLAGS", "LDLIBS", "STANDIN_LINK", "LIBS")
PROGRAM = os.path.join(ROOT, "build/plain/tests/test_cuda_ops")


def run(command, **more):
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **more)


def built(command):
    done = run(command)
    if done.returncode:
        raise RuntimeError("cannot be built: " + done.stdout[-500:])


def patched(folder, fault):
    """A copy of kernels/cuda with the fault; the names of the .cu files whose PTX it changes."""
    _, name, old, new, _, _ = fault
    there = os.path.join(folder, "kernels/cuda")
    shutil.copytree(os.path.join(ROOT, "kernels/cuda"), there)
    path = os.path.join(there, name)
    text = open(path).read()
    for before, after in zip((old,), (new,)) if isinstance(old, str) else zip(old, new):
        if before not in text:
            raise RuntimeError("%s has no such text any more: %s" % (name, before))
        text = text.replace(before, after, 1)
    open(path, "w").write(text)
    sources = [f for f in sorted(os.listdir(there)) if f.endswith(".cu")]
    if not name.endswith(".h"):
        return [f for f in sources if f == name]
    users = {name}
    while True:  # who includes it, at one remove or more
        more = {f for f in os.listdir(there) if any('"kernels/cuda/%s"' % u in open(os.path.join(there, f)).read() for u in users)} - users
        if not more:
            return [f for f in sources if f in users]
        users |= more


def build(folder, fault, make):
    """The program to run and the folder of its PTX."""
    kind = fault[5]
    includes = ["-I" + folder, "-I" + ROOT]
    flags = [f for f in shlex.split(make["NVCCFLAGS"]) if f != "-I."]
    cus = patched(folder, fault)
    ptx = os.path.join(folder, "ptx")
    shutil.copytree(os.path.join(ROOT, "build/ptx"), ptx)
    for f in cus:
        source = os.path.join(folder, "kernels/cuda", f)
        built([make["NVCC"], *flags, *includes, "-arch=compute_80", "-ptx", "-o", os.path.join(ptx, f[:-3] + ".ptx"), source])
    if kind == "ptx":
        return PROGRAM, ptx
    source, made = os.path.join(folder, "kernels/cuda", fault[1]), os.path.join(folder, "fault.o")
    cflags = [f for f in shlex.split(make["CFLAGS"]) if f != "-I."] + includes + ["-isystem", make["CUDA_HOME"] + "/include"]
    if kind == "cu":  # host code and PTX: no need for ptxas
        built([make["NVCC"], *flags, *includes, "-gencode", "arch=compute_80,code=compute_80", "-c", "-o", made, source])
    else:
        built([*shlex.split(make["CC"]), *cflags, "-c", "-o", made, source])
    program = os.path.join(folder, "test")
    built([*shlex.split(make["CC"]), *cflags, "-o", program, "tests/test_cuda_ops.c", made, *shlex.split(make["STANDIN_LINK"]),
           *shlex.split(make["LIBS"]), "-lcmocka", *shlex.split(make["LDLIBS"])])
    return program, ptx


def said(program, ptx):
    """The check that complained, and its words."""
    env = dict(os.environ, STANDIN_PTX=ptx, STANDIN_SEED="1")
    try:
        done = run([program], env=env, timeout=900)
    except subprocess.TimeoutExpired:
        return "endless", "took too long"
    found = re.search(r"^stand-in: ([a-z-]+): .*", done.stdout, re.M)
    if found and done.returncode == 86:
        return found.group(1), found.group(0)
    wrong = re.search(r"^WRONG: .*", done.stdout, re.M)
    if wrong and done.returncode:
        return "WRONG", wrong.group(0)
    return ("nothing", "") if done.returncode == 0 else ("status %d" % done.returncode, done.stdout[-300:])


def caught(fault, make):
    with tempfile.TemporaryDirectory(prefix="fault-") as folder:
        try:
            check, words = said(*build(folder, fault, make))
        except RuntimeError as e:
            return fault, False, "-", str(e)
        return fault, check in fault[4].split("|"), check, words


def main():
    faults = [f for f in FAULTS if len(sys.argv) < 2 or f[0] in sys.argv[1:]]
    make = {name: make_variable(name) for name in NAMES}
    check, words = said(PROGRAM, os.path.join(ROOT, "build/ptx"))
    passed = failed = 0
    if check == "nothing":
        passed += 1
    else:
        failed += 1
        print("FAILED: without a fault: %s" % words)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for fault, good, check, words in pool.map(lambda f: caught(f, make), faults):
            passed, failed = passed + good, failed + (not good)
            print("%-8s %-62s %s" % ("caught" if good else "FAILED:", fault[0], check), flush=True)
            if not good or len(sys.argv) > 1:
                print("    %s" % words[:600])
    print("%d passed, %d failed" % (passed, failed))
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
