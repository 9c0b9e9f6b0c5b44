/* sandbox_report.c: what `whet sandbox-selftest` tells: which layers hold on this machine, measured, not assumed.
 * Tested by tests/test_reward_sandbox.c. */
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "reward/reward.h"
#include "reward/sandbox.h"

static const char *const meanings[LAYER_COUNT] = {
    [LAYER_USER] = "user namespace: root inside would be nobody outside",
    [LAYER_MOUNT] = "mount namespace: read-only system, nobody's files",
    [LAYER_PID] = "PID namespace for each run: its end ends every process in it",
    [LAYER_NET] = "network namespace: nothing to talk to",
    [LAYER_IPC] = "IPC namespace",
    [LAYER_UTS] = "UTS namespace",
    [LAYER_TMP] = "/tmp of its own for each run, limited in size",
    [LAYER_SECCOMP] = "system calls by a list; no sockets, no ptrace, no mounts",
    [LAYER_RLIMITS] = "memory, processes and files are refused beyond their limits",
    [LAYER_NO_PRIVS] = "no capabilities and no way to gain any",
    [LAYER_LANDLOCK] = "Landlock (only newer kernels have it)",
};

static void report_write(Buf *out, const Box *box, unsigned layers) {
    struct utsname kernel;
    uname(&kernel);
    buf_format(out, "code sandbox on Linux %s, as %s, with %s\n", kernel.release,
               geteuid() == 0 ? "root" : "an ordinary user", box->conf.python);
    for (int i = 0; i < LAYER_COUNT; i++)
        buf_format(out, "  %-9s %-3s  %s\n", layer_name(i), layers & (1u << i) ? "yes" : "NO", meanings[i]);
}

bool reward_sandbox_report(char **text, Err *err) {
    BoxConf conf = {.role = BOX_CANDIDATE, .weak = true};
    Box box = {.control = -1};
    Buf out = {0};
    unsigned layers = 0;
    *text = NULL;
    if (!box_find_python(conf.python, sizeof conf.python, err) || !box_open(&box, &conf, err)) return false;
    bool ok = layers_measure(&box, &layers, err);
    unsigned needed = ((1u << LAYER_COUNT) - 1) & ~(1u << LAYER_LANDLOCK);
    if (ok) report_write(&out, &box, layers);
    *text = out.p;
    box_close(&box);
    return ok &&
           ((layers & needed) == needed ||
            err_set(err, "code sandbox: not all layers hold; candidates run only with --allow_weak_sandbox"));
}
