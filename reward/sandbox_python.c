/* sandbox_python.c: the Python that runs inside the sandbox, put into the program at build time. Nothing else.
 * The Makefile makes this object depend on reward/ *.py. Tested by whatever starts a box. */
#include "reward/sandbox.h"

#define EMBED(name, file)                                                                                         \
    __asm__(".pushsection .rodata\n.global " name "\n" name ":\n.incbin \"" file "\"\n.byte 0\n.popsection\n")

EMBED("source_box", "reward/box.py");
EMBED("source_wire", "reward/wire.py");
EMBED("source_candidate", "reward/candidate.py");
EMBED("source_judge", "reward/judge.py");
EMBED("source_probe", "reward/probe.py");
