/* sandbox_filter.c: the list of system calls that a run may make. All others return EPERM, clone3 ENOSYS (the C
 * library then uses clone, whose flags can be seen). Nothing here kills: a refused call is an error to the
 * program.
 *
 * SIGKILL can't be sent by any of the roads that a program has (kill and its kin, a child's exit signal, F_SETSIG,
 * timers, its own limits and filters): so a run that dies of SIGKILL was killed from outside, and its row is tried
 * again instead of being called wrong. Tested by tests/test_reward_sandbox.c. */
#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "reward/sandbox.h"

static const char *const allowed_calls[] = {
    /* files */
    "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2", "open",
    "openat", "openat2", "creat", "close", "close_range", "lseek", "stat", "fstat", "lstat", "newfstatat", "statx",
    "access", "faccessat", "faccessat2", "dup", "dup2", "dup3", "pipe", "pipe2", "ftruncate", "truncate",
    "fallocate", "fsync", "fdatasync", "sync_file_range", "fadvise64", "readahead", "sendfile", "copy_file_range",
    "splice", "tee", "flock", "getdents", "getdents64", "getcwd", "chdir", "fchdir", "mkdir", "mkdirat", "rmdir",
    "rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "symlink", "symlinkat", "readlink",
    "readlinkat", "chmod", "fchmod", "fchmodat", "chown", "fchown", "lchown", "fchownat", "umask", "utime",
    "utimes", "utimensat", "futimesat", "statfs", "fstatfs", "mknod", "mknodat", "getxattr", "lgetxattr",
    "fgetxattr", "listxattr", "llistxattr", "flistxattr", "inotify_init1", "inotify_add_watch", "inotify_rm_watch",
    /* waiting */
    "poll", "ppoll", "select", "pselect6", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait",
    "epoll_pwait", "epoll_pwait2", "eventfd", "eventfd2", "timerfd_create", "timerfd_settime", "timerfd_gettime",
    "signalfd", "signalfd4", "pause", "nanosleep", "clock_nanosleep", "futex", "futex_waitv", "restart_syscall",
    /* memory */
    "mmap", "munmap", "mremap", "mprotect", "madvise", "brk", "mincore", "msync", "membarrier", "mlock", "munlock",
    /* processes and threads */
    "fork", "vfork", "execve", "execveat", "exit", "exit_group", "wait4", "waitid", "set_tid_address",
    "set_robust_list", "get_robust_list", "rseq", "arch_prctl", "gettid", "getpid", "getppid", "getpgid",
    "getpgrp", "setpgid", "getsid", "setsid", "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid",
    "getgroups", "capget", "getrusage", "getrlimit", "times", "getpriority", "sched_yield", "sched_getaffinity",
    "sched_getparam", "sched_getscheduler", "sched_get_priority_max", "sched_get_priority_min", "getcpu",
    /* signals to itself */
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigtimedwait", "rt_sigsuspend",
    "sigaltstack", "alarm", "setitimer", "getitimer",
    /* the rest of what programs ask */
    "uname", "sysinfo", "time", "gettimeofday", "clock_gettime", "clock_getres", "getrandom",
    /* socket pairs, once made */
    "sendto", "recvfrom", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg", "shutdown", "getsockname", "getpeername",
    "getsockopt", "setsockopt"};

typedef struct {
    scmp_filter_ctx ctx;
    int worst; /* the first error, or 0 */
} Filter;

static void filter_note(Filter *f, int rc) {
    if (rc < 0 && rc != -EEXIST && f->worst == 0) f->worst = rc;
}

/* Allows a call when the low 32 bits of argument `arg`, masked, have this value. */
static void allow_masked(Filter *f, const char *name, unsigned arg, uint64_t mask, uint64_t value) {
    int call = seccomp_syscall_resolve_name(name);
    struct scmp_arg_cmp cmp = SCMP_CMP64(arg, SCMP_CMP_MASKED_EQ, mask, value);
    if (call >= 0) filter_note(f, seccomp_rule_add_array(f->ctx, SCMP_ACT_ALLOW, call, 1, &cmp));
}

/* Allows a call unless the low 32 bits of argument `arg` are `not_value`: one rule for each bit that may differ.
 */
static void allow_unless(Filter *f, const char *name, unsigned arg, int bits, uint32_t not_value) {
    for (int bit = 0; bit < bits; bit++) {
        uint64_t mask = 1ull << bit;
        allow_masked(f, name, arg, mask, ~(uint64_t)not_value & mask);
    }
}

static void rules_signals(Filter *f) {
    allow_unless(f, "kill", 1, 7, 9);
    allow_unless(f, "tkill", 1, 7, 9);
    allow_unless(f, "tgkill", 2, 7, 9);
    allow_unless(f, "rt_sigqueueinfo", 1, 7, 9);
    allow_unless(f, "fcntl", 1, 11, 10); /* F_SETSIG */
    /* No new namespaces; a child ends with SIGCHLD or with nothing. */
    uint64_t spaces =
        CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP;
    allow_masked(f, "clone", 0, spaces | 0xff, 0);
    allow_masked(f, "clone", 0, spaces | 0xff, 17);
    filter_note(f, seccomp_rule_add(f->ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0));
}

static void rules_arguments(Filter *f) {
    static const uint32_t options[] = {1, 3, 4, 15, 16, 21, 23, 38, 39, 41, 42, 0x53564d41};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        allow_masked(f, "prctl", 0, 0xffffffff, options[i]);
    static const uint32_t requests[] = {0x5401, 0x5413, 0x541b, 0x5421, 0x5450, 0x5451}; /* TCGETS ... FIOCLEX */
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
        allow_masked(f, "ioctl", 1, 0xffffffff, requests[i]);
    allow_masked(f, "socketpair", 0, 0xffffffff, 1);
    allow_masked(f, "sched_setaffinity", 0, 0xffffffff, 0);
    /* Its own limits, but not that of processor time: the end that it brings looks like SIGKILL from outside. */
    struct scmp_arg_cmp own = SCMP_CMP64(0, SCMP_CMP_MASKED_EQ, 0xffffffff, 0);
    struct scmp_arg_cmp query = SCMP_CMP64(2, SCMP_CMP_EQ, 0);
    filter_note(f, seccomp_rule_add(f->ctx, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 2, own, query));
    for (int bit = 0; bit < 4; bit++) {
        struct scmp_arg_cmp which = SCMP_CMP64(1, SCMP_CMP_MASKED_EQ, 1u << bit, 1u << bit);
        filter_note(f, seccomp_rule_add(f->ctx, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 2, own, which));
        allow_masked(f, "setrlimit", 0, 1u << bit, 1u << bit);
    }
}

static bool filter_export(Filter *f, Buf *out) {
    int fd = memfd_create("filter", MFD_CLOEXEC);
    if (fd < 0) return false;
    bool ok = seccomp_export_bpf(f->ctx, fd) == 0;
    unsigned char bytes[4096];
    lseek(fd, 0, SEEK_SET);
    for (ssize_t n; ok && (n = read(fd, bytes, sizeof bytes)) > 0;)
        for (ssize_t i = 0; i < n; i++) buf_format(out, "%02x", bytes[i]);
    close(fd);
    return ok && out->n > 0;
}

bool filter_build(Buf *out, Err *err) {
    Filter f = {.ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM))};
    if (!f.ctx) return err_set(err, "code sandbox: seccomp filter: out of memory");
    seccomp_attr_set(f.ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(ENOSYS));
    seccomp_attr_set(f.ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    for (size_t i = 0; i < sizeof allowed_calls / sizeof *allowed_calls; i++) {
        int call = seccomp_syscall_resolve_name(allowed_calls[i]);
        if (call >= 0) filter_note(&f, seccomp_rule_add(f.ctx, SCMP_ACT_ALLOW, call, 0));
    }
    rules_signals(&f);
    rules_arguments(&f);
    bool ok = f.worst == 0 && filter_export(&f, out);
    seccomp_release(f.ctx);
    return ok || err_set(err, "code sandbox: seccomp filter: %s", f.worst ? strerror(-f.worst) : "cannot export");
}
