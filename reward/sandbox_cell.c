/* sandbox_cell.c: one run in a box: start it, hear how it ended, watch its limits from outside, kill it.
 * What the run is good for is the caller's business. Tested by tests/test_reward_sandbox.c. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "reward/sandbox.h"

static bool send_with_fds(int socket, const char *text, size_t n, const int *fds, int n_fds) {
    union {
        char bytes[CMSG_SPACE(4 * sizeof(int))];
        struct cmsghdr align;
    } room = {0};
    struct iovec part = {.iov_base = (void *)(uintptr_t)text, .iov_len = n};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = room.bytes,
                             .msg_controllen = CMSG_SPACE((size_t)n_fds * sizeof(int))};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN((size_t)n_fds * sizeof(int));
    memcpy(CMSG_DATA(head), fds, (size_t)n_fds * sizeof(int));
    return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n;
}

bool cell_start(Cell *cell, Box *box, const char *kind, const char *extra, const Limits *limits, const int fds[4],
                Err *err) {
    *cell = (Cell){.box = box, .limits = *limits, .active = true, .pidfd = -1, .started = clock_seconds()};
    Buf text = {0};
    buf_format(&text,
               "{\"kind\": \"%s\", \"limits\": {\"as\": %lld, \"cpu\": %lld, \"file\": %lld, \"tmp\": %lld, "
               "\"procs\": %d}%s}",
               kind, (long long)limits->space, (long long)(limits->cpu_s + 0.999), (long long)limits->file,
               (long long)limits->disk, limits->procs, extra);
    bool ok = send_with_fds(box->control, text.p, text.n, fds, 4);
    buf_free(&text);
    if (!ok) {
        cell->active = false;
        return err_set(err, "code sandbox: the box takes no work: %s", strerror(errno));
    }
    return true;
}

static void cell_broke(Cell *cell, const char *why) {
    if (cell->end != END_NONE) return;
    cell->end = END_BROKEN;
    snprintf(cell->error, sizeof cell->error, "%.199s", why);
}

/* How the run itself ended. SIGKILL that we did not send came from outside (see sandbox_filter.c), unless the
 * processor time was used up. */
static void cell_report(Cell *cell, const char *text) {
    double cpu = 0;
    long peak = 0;
    cell->reported = true;
    if (sscanf(text, "%d %lf %ld", &cell->status, &cpu, &peak) != 3) return cell_broke(cell, "unreadable report");
    if (cpu > cell->cpu_s) cell->cpu_s = cpu;
    if (peak * 1024 > cell->peak) cell->peak = peak * 1024;
    if (cell->end != END_NONE) return;
    bool killed = WIFSIGNALED(cell->status) && WTERMSIG(cell->status) == SIGKILL;
    if (killed && cell->cpu_s > (double)(int64_t)(cell->limits.cpu_s + 0.999) - 0.3)
        cell->end = END_CPU;
    else if (killed)
        cell_broke(cell, "the run was killed from outside");
    else
        cell->end = END_EXIT;
}

/* All processes of the cell are gone. A judge tells only this: it lives on. */
static void cell_done(Cell *cell, int status) {
    if (cell->pidfd >= 0) close(cell->pidfd);
    cell->pidfd = -1;
    cell->active = false;
    if (cell->seconds == 0) cell->seconds = clock_seconds() - cell->started;
    if (cell->end != END_NONE) return;
    cell->status = status;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && !cell->reported)
        cell->end = END_EXIT;
    else
        cell_broke(cell, "the cell was killed");
}

/* The process by whose death the cell ends; it may be wanted dead before it was known. */
static void cell_keeper(Cell *cell, pid_t pid) {
    cell->keeper = pid;
    cell->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (cell->end != END_NONE) cell_kill(cell, cell->end);
}

bool box_read(Box *box, Cell *cell) {
    char text[512];
    union {
        char bytes[CMSG_SPACE(sizeof(struct ucred))];
        struct cmsghdr align;
    } room;
    struct iovec part = {.iov_base = text, .iov_len = sizeof text - 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = room.bytes, .msg_controllen = sizeof room.bytes};
    ssize_t n = recvmsg(box->control, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (n <= 0) {
        if (cell && cell->active) {
            cell_broke(cell, "the box was killed");
            cell_done(cell, 0);
        }
        return false;
    }
    text[n] = '\0';
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (text[0] == 'B') box->ready = true;
    if (!cell || !cell->active) return true;
    struct ucred who = {0};
    if (head && head->cmsg_type == SCM_CREDENTIALS) memcpy(&who, CMSG_DATA(head), sizeof who);
    if (text[0] == 'K') {
        cell_keeper(cell, who.pid);
    } else if (text[0] == 'R') {
        if (cell->pidfd < 0) cell_keeper(cell, who.pid);
        cell->pid = who.pid;
        cell->started = clock_seconds();
    } else if (text[0] == 'X') {
        if (cell->seconds == 0) cell->seconds = clock_seconds() - cell->started;
        cell_report(cell, text + 2);
    } else if (text[0] == 'E') {
        cell_broke(cell, text + 2);
    } else if (text[0] == 'D') {
        cell_done(cell, atoi(text + 2));
    }
    return true;
}

void cell_kill(Cell *cell, CellEnd why) {
    if (!cell->active) return;
    if (cell->end == END_NONE) cell->end = why;
    if (cell->killed == 0) cell->killed = clock_seconds();
    if (cell->seconds == 0) cell->seconds = cell->killed - cell->started;
    if (cell->pidfd >= 0) syscall(SYS_pidfd_send_signal, cell->pidfd, SIGKILL, NULL, 0);
}

/* ---- watching -------------------------------------------------------------------------------------------------
 */

typedef struct {
    int64_t memory;
    double cpu_s;
    int procs;
} Usage;

static bool read_text(char *text, size_t room, const char *format, int pid, int task) {
    char path[80];
    snprintf(path, sizeof path, format, pid, task);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = read(fd, text, room - 1);
    close(fd);
    if (n < 0) return false;
    text[n] = '\0';
    return true;
}

static int64_t status_kib(const char *text, const char *name) {
    const char *at = strstr(text, name);
    return at ? strtoll(at + strlen(name), NULL, 10) : 0;
}

static void usage_add_one(Usage *u, int pid) {
    enum { WARM_KIB = 8 << 10 }; /* what each fork of the warm Python shares with the others */
    char text[4096];
    if (read_text(text, sizeof text, "/proc/%d/status", pid, 0)) {
        int64_t kib = status_kib(text, "RssAnon:") + status_kib(text, "RssShmem:");
        u->memory += kib > WARM_KIB ? (kib - WARM_KIB) << 10 : 0;
        u->procs += (int)status_kib(text, "Threads:");
    }
    if (read_text(text, sizeof text, "/proc/%d/stat", pid, 0)) {
        const char *at = strrchr(text, ')');
        unsigned long user = 0, system = 0;
        if (at && sscanf(at + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) == 2)
            u->cpu_s += (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
    }
}

/* All descendants, by the lists of children of each thread. Bounded: the limit of processes is small. */
static void usage_add_children(Usage *u, int pid, int depth) {
    char path[64], text[8192];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    if (!tasks) return;
    for (struct dirent *d; (d = readdir(tasks)) && u->procs < 4096;) {
        int task = atoi(d->d_name);
        if (task <= 0 || !read_text(text, sizeof text, "/proc/%d/task/%d/children", pid, task)) continue;
        for (char *at = text, *end;; at = end) {
            long child = strtol(at, &end, 10);
            if (end == at) break;
            usage_add_one(u, (int)child);
            if (depth < 64) usage_add_children(u, (int)child, depth + 1);
        }
    }
    closedir(tasks);
}

void cell_watch(Cell *cell, double now) {
    if (!cell->active || cell->killed > 0) return;
    double lived = now - cell->started;
    if (lived > cell->limits.wall_s) return cell_kill(cell, END_WALL);
    if (cell->pid == 0 || cell->pid == cell->box->pid || cell->reported || lived < 0.02) return;
    Usage u = {0};
    usage_add_one(&u, cell->pid);
    usage_add_children(&u, cell->pid, 0);
    if (cell->keeper != cell->pid) usage_add_children(&u, cell->keeper, 0); /* what lost its parent */
    if (u.memory > cell->peak) cell->peak = u.memory;
    if (u.cpu_s > cell->cpu_s) cell->cpu_s = u.cpu_s;
    if (u.procs >= cell->limits.procs) cell->crowded = true;
    if (u.memory > cell->limits.memory) return cell_kill(cell, END_MEMORY);
    if (u.cpu_s > cell->limits.cpu_s) cell_kill(cell, END_CPU);
}
