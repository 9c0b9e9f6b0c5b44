#!/usr/bin/env python3
"""table.py: what nvcc makes of the CUDA kernels for each architecture, and a model of their speed; the committed table
is tests/ptx/table.txt. `table.py` compares, `table.py write` writes it anew. tests/long_cuda_table.sh runs it.

From ptxas: registers, shared memory (static), stack, spills. From the cubins: how many instructions are tensor products
(HMMA), asynchronous copies (LDGSTS), matrix loads (LDSM), loads and stores of local memory (LDL, STL); an instruction is
128 bits, its opcode the low 12.

The model (MODELLED, measured on no GPU) takes the interpreter's counts of tests/test_standin_shapes.c, a layer of a 135M
model at 128 rows, and an A100's documented figures: the longest of sectors over memory bandwidth, tensor operations over
their peak, warp instructions over issue slots, shared memory's passes over one a clock; the last three on as many SMs
as there are blocks. No latency, no cache, no overlap: it ranks variants, and is no promise. A launch adds some 4 us."""
import concurrent.futures
import os
import re
import shlex
import struct
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TABLE = os.path.join(ROOT, "tests/ptx/table.txt")
ARCHS = ("80", "86", "89", "90", "100", "120")
OPCODES = {0x23C: "HMMA", 0xFAE: "LDGSTS", 0x83B: "LDSM", 0x983: "LDL", 0x387: "STL"}
# A100-SXM4-40GB: NVIDIA A100 Tensor Core GPU Architecture white paper, table 4.
SMS, CLOCK, BANDWIDTH, TENSOR = 108, 1.41e9, 1555e9, 312e12
# What each kernel must have; the others must have none of these.
TENSOR_KERNELS = {"attend_kernel": ("HMMA", "LDSM", "LDGSTS"), "dq_kernel": ("HMMA", "LDSM", "LDGSTS"),
                  "dkv_kernel": ("HMMA", "LDSM", "LDGSTS"), "dw_kernel": ("HMMA", "LDSM", "LDGSTS")}


def variable(name):
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(["make", "-s", "--no-print-directory", "CUDA=1", "print-" + name], cwd=ROOT, env=env, check=True,
                          text=True, stdout=subprocess.PIPE).stdout.strip()


def plain(name):
    """_Z13attend_kernelILi64EEv6Attend: attend_kernel<64>."""
    found = re.match(r"_Z+N?L?(\d+)", name)
    if not found:
        return name
    end = found.end() + int(found.group(1))
    values = re.match(r"I((?:L[a-z]\d+E)+)E", name[end:])
    return name[found.end():end] + ("<%s>" % ",".join(re.findall(r"L[a-z](\d+)E", values.group(1))) if values else "")


def histogram(path):
    """Opcodes of each kernel of a cubin."""
    data = open(path, "rb").read()
    start = struct.unpack_from("<Q", data, 0x28)[0]
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, start + i * size) for i in range(count)]
    text = sections[names][4]
    result = {}
    for s in sections:
        name = data[text + s[0]:data.index(b"\0", text + s[0])].decode()
        if name.startswith(".text."):
            codes = [struct.unpack_from("<Q", data, s[4] + o)[0] & 0xFFF for o in range(0, s[5], 16)]
            result[name[6:]] = {"all": len(codes), **{n: codes.count(c) for c, n in OPCODES.items()}}
    return result


def compiled(job):
    """One file for one architecture: the kernels' figures. A warning of nvcc's or ptxas's is an error."""
    nvcc, flags, arch, source = job
    cubin = os.path.join(ROOT, "build/cubins", "%s.sm_%s.cubin" % (os.path.basename(source)[:-3], arch))
    done = subprocess.run([nvcc, *flags, *shlex.split(variable("CUDA_PTX") + "sm_" + arch), "-Xptxas", "-v", "-cubin", "-o", cubin,
                           source], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit("FAILED: %s for sm_%s: %s" % (source, arch, done.stdout[-800:]))
    codes, rows, name = histogram(cubin), {}, None
    for line in done.stdout.splitlines():
        if found := re.search(r"Function properties for (\S+)", line):
            name = found.group(1)
        if found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            rows.setdefault(name, {}).update(stack=int(found.group(1)), spills=int(found.group(2)) + int(found.group(3)))
        if found := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            rows[name].update(registers=int(found.group(1)), shared=int(shared.group(1)) if shared else 0)
    return arch, {k: dict(v, **codes[k]) for k, v in rows.items() if k in codes}


def gates(arch, name, r):
    """What is wrong with a kernel whatever the table says."""
    kernel = plain(name).split("<")[0]
    wrong = []
    if r["spills"] or (kernel in TENSOR_KERNELS and (r["LDL"] or r["STL"] or r["stack"])):
        wrong.append("spills or local memory")
    for code in ("HMMA", "LDSM", "LDGSTS"):
        if (r[code] > 0) != (code in TENSOR_KERNELS.get(kernel, ())):
            wrong.append("%s: %d" % (code, r[code]))
    return ["sm_%s %s: %s" % (arch, plain(name), w) for w in wrong]


def occupancy(registers, shared, threads):
    """Blocks of an A100's SM: CUDA occupancy calculator's rules for 8.0."""
    warps = (threads + 31) // 32
    by_registers = 65536 // ((registers * 32 + 255) // 256 * 256 * warps)
    return min(by_registers, 164 * 1024 // (shared + 1024), 64 // warps, 32)


def modelled(counts_path, figures):
    lines = []
    for line in open(counts_path):
        words = line.split()
        name, c = words[0], {k: int(v) for k, v in zip(words[1::2], words[2::2])}
        if not c["launches"] or name not in figures:
            continue
        n, blocks = c["launches"], c["blocks"] / c["launches"]
        share = min(1, blocks / SMS) * SMS
        issued = sum(c[k] for k in ("int", "fp", "sfu", "mma", "global", "shared", "local", "param", "sync", "flow"))
        terms = {"memory": c["sectors"] * 32 / n / BANDWIDTH, "tensor": c["flops"] / n / (TENSOR / SMS * share),
                 "issue": issued / n / (share * 4 * CLOCK), "shared": c["wavefronts"] / n / (share * CLOCK)}
        bound = max(terms, key=terms.get)
        lines.append("%-26s %7.0f %7d %7d %9d %9.2f %9.2f %11.2f  %s" % (
            plain(name), blocks, c["threads"], c["shared_bytes"], occupancy(figures[name]["registers"], c["shared_bytes"], c["threads"]),
            c["sectors"] / max(c["requests"], 1), c["wavefronts"] / max(c["shared_requests"], 1), terms[bound] * 1e6, bound))
    return lines


def main():
    os.makedirs(os.path.join(ROOT, "build/cubins"), exist_ok=True)
    nvcc, flags = variable("NVCC"), shlex.split(variable("NVCCFLAGS"))
    version = re.search(r"V[\d.]+", subprocess.run([nvcc, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout).group(0)
    sources = sorted("kernels/cuda/" + f for f in os.listdir(os.path.join(ROOT, "kernels/cuda")) if f.endswith(".cu"))
    table, wrong = {}, []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for arch, rows in pool.map(compiled, [(nvcc, flags, a, s) for s in sources for a in ARCHS]):
            for name, r in rows.items():
                table[(name, arch)] = r
                wrong += gates(arch, name, r)
    lines = ["nvcc %s. Written by `tests/ptx/table.py write`; its change fails tests/long_cuda_table.sh." % version, "",
             "%-26s %5s %9s %7s %6s %7s %6s %6s %6s %5s %5s" % ("kernel", "sm", "registers", "shared", "stack", "code", "HMMA", "LDGSTS",
                                                                "LDSM", "LDL", "STL")]
    for name, arch in sorted(table, key=lambda k: (plain(k[0]), int(k[1]))):
        r = table[(name, arch)]
        lines.append("%-26s %5s %9d %7d %6d %7d %6d %6d %6d %5d %5d" % (plain(name), arch, r["registers"], r["shared"], r["stack"], r["all"],
                                                                         r["HMMA"], r["LDGSTS"], r["LDSM"], r["LDL"], r["STL"]))
    lines += ["", "MODELLED on an A100 from counts, measured on no GPU: one launch at the shapes of tests/test_standin_shapes.c",
              "%-26s %7s %7s %7s %9s %9s %9s %11s  %s" % ("kernel", "blocks", "threads", "shared", "blocks/SM", "sect./req", "pass/req",
                                                          "modelled us", "bound by")]
    lines += modelled(os.environ["COUNTS"], {n: r for (n, a), r in table.items() if a == "80"})
    lines = [line.rstrip() for line in lines]
    if sys.argv[1:] == ["write"]:
        open(TABLE, "w").write("\n".join(lines) + "\n")
    committed = open(TABLE).read().splitlines()
    same_nvcc = committed[:1] == lines[:1]
    changed = [b for b in lines if b not in committed] + ["gone: " + a for a in committed if a not in lines]
    for w in wrong:
        print("FAILED: " + w)
    if same_nvcc and changed:
        print("FAILED: tests/ptx/table.txt is no longer true; look at it, then COUNTS=... tests/ptx/table.py write, and commit:")
        print("\n".join("    " + c for c in changed[:40]))
    if not same_nvcc:
        print("SKIPPED: the table is of another nvcc (%s, here %s): only the gates were checked" % (committed[0].split(". ")[0], version))
    print("%d passed, %d failed" % (len(table) - len(wrong) + (same_nvcc and not changed), len(wrong) + bool(same_nvcc and changed)))
    return bool(wrong or (same_nvcc and changed))


if __name__ == "__main__":
    sys.exit(main())
