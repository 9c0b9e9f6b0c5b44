/* sandbox_probe.c: measures which layers really hold, with a cell that runs probe.py and with the kernel's names
 * of the namespaces seen from outside. Believes nothing that was merely asked for. Tested by
 * tests/test_reward_sandbox.c. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "reward/sandbox.h"

static bool namespace_differs(pid_t pid, const char *name) {
    char path[64];
    struct stat ours, theirs;
    snprintf(path, sizeof path, "/proc/self/ns/%s", name);
    if (stat(path, &ours) != 0) return false;
    snprintf(path, sizeof path, "/proc/%d/ns/%s", (int)pid, name);
    return stat(path, &theirs) == 0 && ours.st_ino != theirs.st_ino;
}

static unsigned namespaces_measure(pid_t pid) {
    static const struct {
        Layer layer;
        const char *name;
    } spaces[] = {{LAYER_USER, "user"}, {LAYER_MOUNT, "mnt"}, {LAYER_PID, "pid"},
                  {LAYER_NET, "net"},   {LAYER_IPC, "ipc"},   {LAYER_UTS, "uts"}};
    unsigned layers = 0;
    for (int i = 0; i < 6; i++)
        if (namespace_differs(pid, spaces[i].name)) layers |= 1u << spaces[i].layer;
    return layers;
}

static unsigned layers_named(const char *text) {
    unsigned layers = 0;
    for (int i = 0; i < LAYER_COUNT; i++) {
        const char *name = layer_name(i), *at = strstr(text, name);
        if (at && (at == text || at[-1] == ' ') && strchr(" \n", at[strlen(name)])) layers |= 1u << i;
    }
    return layers;
}

static void box_wait(Box *box, int milliseconds) {
    struct pollfd p = {.fd = box->control, .events = POLLIN};
    poll(&p, 1, milliseconds);
}

/* Runs the cell to its end; the namespaces are read while process 1 lives. */
static bool probe_run(Box *box, const int fds[4], unsigned *spaces, Err *err) {
    Limits limits = {.wall_s = 10,
                     .cpu_s = 10,
                     .memory = 1ll << 30,
                     .space = 1ll << 30,
                     .file = 2 << 20,
                     .disk = 8 << 20,
                     .output = 4096,
                     .procs = 8};
    Cell cell;
    if (!cell_start(&cell, box, "script", "", &limits, fds, err)) return false;
    double give_up = clock_seconds() + 15;
    while (cell.active && clock_seconds() < give_up) {
        box_wait(box, 20);
        if (!box_read(box, &cell)) return err_set(err, "code sandbox: the box died while it was measured");
        if (cell.pid) *spaces |= namespaces_measure(cell.pid);
        cell_watch(&cell, clock_seconds());
    }
    if (cell.active) return err_set(err, "code sandbox: the measurement hangs");
    if (cell.end == END_EXIT && WIFEXITED(cell.status) && WEXITSTATUS(cell.status) == 0) return true;
    char said[200] = "";
    ssize_t n = pread(fds[2], said, sizeof said - 1, 0);
    said[n > 0 ? n : 0] = '\0';
    return err_set(err, "code sandbox: the measurement failed: %s %s (end %d, status %d)", cell.error, said,
                   cell.end, cell.status);
}

bool layers_measure(Box *box, unsigned *layers, Err *err) {
    double give_up = clock_seconds() + 15;
    while (!box->ready) {
        box_wait(box, 100);
        if (!box_read(box, NULL)) return err_set(err, "code sandbox: Python does not start in the box");
        if (clock_seconds() > give_up) return err_set(err, "code sandbox: Python hangs while it starts");
    }
    int fds[4] = {open("/dev/null", O_RDONLY | O_CLOEXEC), memfd_create("out", MFD_CLOEXEC),
                  memfd_create("err", MFD_CLOEXEC), memfd_create("probe", MFD_CLOEXEC)};
    unsigned spaces = 0;
    char text[512] = "";
    bool ok = fds[0] >= 0 && fds[1] >= 0 && fds[2] >= 0 && fds[3] >= 0 &&
              write(fds[3], source_probe, strlen(source_probe)) == (ssize_t)strlen(source_probe);
    if (!ok) err_set(err, "code sandbox: descriptors: %s", strerror(errno));
    if (ok) ok = probe_run(box, fds, &spaces, err);
    if (ok && pread(fds[1], text, sizeof text - 1, 0) < 0) ok = err_set(err, "code sandbox: %s", strerror(errno));
    for (int i = 0; i < 4; i++)
        if (fds[i] >= 0) close(fds[i]);
    /* A namespace counts when the kernel says so; where the probe has an opinion too, both must agree. */
    unsigned by_kernel = 1u << LAYER_USER | 1u << LAYER_NET | 1u << LAYER_IPC | 1u << LAYER_UTS;
    unsigned by_both = 1u << LAYER_MOUNT | 1u << LAYER_PID;
    unsigned told = layers_named(text);
    *layers = (spaces & by_kernel) | (spaces & told & by_both) | (told & ~by_kernel & ~by_both);
    return ok;
}
