/* sandbox.c: makes a box: namespaces, identity, a read-only root, and the Python that waits in it.
 * What happens inside afterwards is box.py; the runs are sandbox_cell.c. Tested by tests/test_reward_sandbox.c. */
#include "reward/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { INSIDE_ID = 1000, NOBODY = 65534, FIRST_BOX_ID = 61184 };

static const char *const layer_names[LAYER_COUNT] = {"user", "mount",   "pid",     "net",      "ipc",     "uts",
                                                     "tmp",  "seccomp", "rlimits", "no-privs", "landlock"};

const char *layer_name(Layer layer) { return layer_names[layer]; }

void layers_text(unsigned layers, Buf *out) {
    for (int i = 0; i < LAYER_COUNT; i++)
        if (layers & (1u << i)) buf_format(out, "%s%s", out->n ? " " : "", layer_names[i]);
}

bool box_find_python(char *path, size_t room, Err *err) {
    static const char *const places[] = {"/usr/bin/python3", "/usr/local/bin/python3"};
    for (int i = 0; i < 2; i++)
        if (access(places[i], X_OK) == 0) {
            snprintf(path, room, "%s", places[i]);
            return true;
        }
    return err_set(err, "code sandbox: no /usr/bin/python3; install Python 3 (apt install python3)");
}

/* ---- the child, between clone and exec ---------------------------------------------------------------------- */

_Noreturn static void child_fail(int report, const char *what) {
    dprintf(report, "%s: %s", what, strerror(errno));
    _exit(1);
}

static void must(int report, bool ok, const char *what) {
    if (!ok) child_fail(report, what);
}

static bool make_readonly(const char *path, bool recursive) {
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
    return syscall(SYS_mount_setattr, AT_FDCWD, path, recursive ? AT_RECURSIVE : 0, &attr, sizeof attr) == 0;
}

/* One entry of the new root: a symlink as it is, a folder bound read-only; what this machine lacks is left out. */
static void root_add_folder(int report, const char *from) {
    struct stat st;
    char target[PATH_MAX];
    const char *to = from + 1; /* the working directory is the new root */
    if (lstat(from, &st) != 0) return;
    if (S_ISLNK(st.st_mode)) {
        ssize_t n = readlink(from, target, sizeof target - 1);
        must(report, n > 0, from);
        target[n] = '\0';
        must(report, symlink(target, to) == 0, from);
    } else {
        must(report, mkdir(to, 0755) == 0, from);
        must(report, mount(from, to, NULL, MS_BIND | MS_REC, NULL) == 0, from);
        must(report, make_readonly(to, true), "mount_setattr (needs Linux 5.12)");
    }
}

static void root_add_file(int report, const char *from, bool device) {
    if (access(from, F_OK) != 0) return;
    int fd = open(from + 1, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    must(report, fd >= 0, from);
    close(fd);
    must(report, mount(from, from + 1, NULL, MS_BIND, NULL) == 0, from);
    if (!device) must(report, make_readonly(from + 1, false), from);
}

static void root_write_file(int report, const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    must(report, fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), path);
    close(fd);
}

/* A new root on a small tmpfs, over /tmp of this mount namespace only: the system's programs and libraries, a few
 * devices, nothing of anybody's files, no /proc, no /sys. */
static void root_make(int report) {
    static const char *const folders[] = {"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};
    static const char *const devices[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"};
    must(report, mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "making mounts private");
    must(report, mount("box", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=256k,nr_inodes=256,mode=755") == 0,
         "tmpfs");
    must(report, chdir("/tmp") == 0, "chdir");
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) root_add_folder(report, folders[i]);
    must(report,
         mkdir("dev", 0755) == 0 && mkdir("etc", 0755) == 0 && mkdir("cell", 0755) == 0 &&
             mkdir("cell/tmp", 0755) == 0 && symlink("cell/tmp", "tmp") == 0,
         "making folders");
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) root_add_file(report, devices[i], true);
    must(report, symlink("/tmp", "dev/shm") == 0, "/dev/shm");
    root_add_file(report, "/etc/ld.so.cache", false);
    if (access("/etc/alternatives", F_OK) == 0) root_add_folder(report, "/etc/alternatives");
    root_write_file(report, "etc/passwd", "user:x:1000:1000:user:/tmp:/bin/sh\n");
    root_write_file(report, "unlisted",
                    "readable by mounts, not by Landlock\n"); /* how probe.py tells them apart */
    must(report, syscall(SYS_pivot_root, ".", ".") == 0, "pivot_root");
    must(report, umount2(".", MNT_DETACH) == 0 && chdir("/") == 0, "leaving the old root");
    must(report, make_readonly("/", false), "read-only root");
}

/* Keeps the capabilities over exec though we are not root inside: cells need them to be made, and lose them. */
static void capabilities_keep(int report) {
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    must(report, syscall(SYS_capget, &head, data) == 0, "capget");
    for (int i = 0; i < 2; i++) data[i].inheritable = data[i].permitted;
    must(report, syscall(SYS_capset, &head, data) == 0, "capset");
    for (int cap = 0; cap < 64; cap++)
        if (data[cap / 32].permitted & (1u << (cap % 32))) prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0);
}

static void descriptors_place(int report, const int *fds, int n) {
    for (int i = 0; i < n; i++) { /* above all targets first */
        int high = fcntl(fds[i], F_DUPFD, 100);
        must(report, high >= 0 && dup2(high, 200 + i) >= 0, "descriptors");
    }
    for (int i = 0; i < n; i++) must(report, dup2(200 + i, i) == i, "descriptors");
    must(report, syscall(SYS_close_range, n, ~0u, 0) == 0, "close_range (needs Linux 5.9)");
}

static void limits_start(void) {
    struct rlimit stack = {8 << 20, 64 << 20}, files = {1024, 1024}, core = {0, 0};
    setrlimit(RLIMIT_STACK, &stack); /* the hard limit is what runs get; the soft one sizes the threads' stacks */
    setrlimit(RLIMIT_NOFILE, &files);
    setrlimit(RLIMIT_CORE, &core);
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (write(fd, "900", 3) < 0) errno = 0; /* a kindness to the other processes, no layer */
        close(fd);
    }
}

/* fds: control, source, go, report. */
_Noreturn static void child_main(const Box *box, int control, int source, int go, int report) {
    char byte;
    must(report, read(go, &byte, 1) == 1, "the worker went away");
    if (box->user)
        must(report,
             setresgid(INSIDE_ID, INSIDE_ID, INSIDE_ID) == 0 && setresuid(INSIDE_ID, INSIDE_ID, INSIDE_ID) == 0,
             "taking an identity");
    limits_start();
    int own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    must(report, own >= 0 || !box->namespaces, "/proc/self/ns/pid");
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    must(report, null >= 0, "/dev/null");
    if (box->namespaces) root_make(report);
    if (box->user) capabilities_keep(report);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int s = 1; s < 65; s++) signal(s, SIG_DFL);
    int fds[] = {null, null, null, control, own >= 0 ? own : null, source};
    descriptors_place(report, fds, 6);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    char *argv[] = {"python3",
                    "-B",
                    "-s",
                    "-X",
                    "utf8",
                    "-c",
                    "import builtins as b,os,sys\nsys.path=[p for p in sys.path if p]\n"
                    "s=os.pread(5,1<<20,0);os.close(5)\n"
                    "exec(compile(s,'box','exec'),{'__builtins__':dict(vars(b)),'__name__':'box'})",
                    NULL};
    char *envp[] = {"PATH=/usr/bin:/bin", "PYTHONHASHSEED=0", "LANG=C.UTF-8", "HOME=/tmp", "LD_BIND_NOW=1", NULL};
    execve(box->conf.python, argv, envp);
    _exit(127);
}

/* ---- the worker's side ----------------------------------------------------------------------------------------
 */

static bool write_file(const char *format, pid_t pid, const char *text) {
    char path[64];
    snprintf(path, sizeof path, format, (int)pid);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return ok;
}

/* Inside there is one identity. Outside it is our own, or, for root, one that owns nothing. */
static bool identity_map(pid_t pid) {
    char text[64];
    bool root = geteuid() == 0;
    if (!write_file("/proc/%d/setgroups", pid, "deny")) return false;
    snprintf(text, sizeof text, "%d %u 1", INSIDE_ID, root ? (unsigned)NOBODY : geteuid());
    if (!write_file("/proc/%d/uid_map", pid, text)) return false;
    snprintf(text, sizeof text, "%d %u 1", INSIDE_ID, root ? (unsigned)NOBODY : getegid());
    return write_file("/proc/%d/gid_map", pid, text);
}

static int source_file(BoxRole role) {
    int fd = memfd_create("source", MFD_CLOEXEC);
    const char *parts[] = {source_box, source_wire, role == BOX_JUDGE ? source_judge : source_candidate,
                           "\nbox_main()\n"};
    for (int i = 0; fd >= 0 && i < 4; i++)
        if (write(fd, parts[i], strlen(parts[i])) < 0) {
            close(fd);
            return -1;
        }
    return fd;
}

static pid_t box_clone(const Box *box) {
    unsigned long spaces =
        box->namespaces ? CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS : 0;
    return (pid_t)syscall(SYS_clone, spaces | (box->user ? CLONE_NEWUSER : 0) | SIGCHLD, 0, 0, 0, 0);
}

static bool folder_make(Box *box) {
    const char *base = getenv("TMPDIR");
    snprintf(box->folder, sizeof box->folder, "%.40s/whet-box-XXXXXX", base && strlen(base) < 40 ? base : "/tmp");
    return mkdtemp(box->folder) && chmod(box->folder, 0711) == 0;
}

static bool conf_send(Box *box, Err *err) {
    Buf text = {0};
    int id = geteuid() == 0 && !box->user ? FIRST_BOX_ID + box->conf.number : 0;
    buf_format(&text, "{\"namespaces\": %s, \"setuid\": %d, \"tmp\": \"%s\", \"landlock\": true, \"filter\": \"",
               box->namespaces ? "true" : "false", id, box->namespaces ? "/cell/tmp" : box->folder);
    bool ok = filter_build(&text, err);
    buf_text(&text, "\"");
    if (box->conf.role == BOX_JUDGE)
        buf_format(&text, ", \"judge\": {\"as\": %lld, \"cpu\": 100000, \"file\": %d, \"tmp\": %d, \"procs\": 4}",
                   2ll << 30, 1 << 20, 1 << 20);
    buf_char(&text, '}');
    if (ok && send(box->control, text.p, text.n, MSG_NOSIGNAL) < 0)
        ok = err_set(err, "code sandbox: the box does not listen: %s", strerror(errno));
    buf_free(&text);
    return ok;
}

static void fd_close(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* Waits for the child to exec (report closes empty) or to say what failed. */
static bool child_reported(int report, Err *err) {
    char text[300];
    size_t n = 0;
    for (ssize_t r; n < sizeof text - 1 && (r = read(report, text + n, sizeof text - 1 - n)) > 0;) n += (size_t)r;
    text[n] = '\0';
    return n == 0 || err_set(err, "code sandbox: cannot make a box: %s", text);
}

/* Between the clone and the exec of the child: lets it go on, and hears whether it could. */
static bool child_start(Box *box, const int go[2], const int report[2], Err *err) {
    if (box->pid < 0)
        return err_set(err,
                       "code sandbox: this machine gives no user namespaces (clone: %s), so none of the layers "
                       "user, mount, pid, net, ipc, uts, tmp",
                       strerror(errno));
    if (box->user && !identity_map(box->pid))
        return err_set(err,
                       "code sandbox: this machine gives no usable user namespaces (uid_map: %s), so none of the "
                       "layers user, mount, pid, net, ipc, uts, tmp",
                       strerror(errno));
    if (!box->namespaces && !folder_make(box))
        return err_set(err, "code sandbox: cannot make a folder for cells: %s", strerror(errno));
    if (write(go[1], "g", 1) != 1) return err_set(err, "code sandbox: pipe: %s", strerror(errno));
    return box->conf.quick || child_reported(report[0], err);
}

static bool box_try(Box *box, bool user, bool namespaces, Err *err) {
    int control[2] = {-1, -1}, go[2] = {-1, -1}, report[2] = {-1, -1}, one = 1,
        source = source_file(box->conf.role);
    *box = (Box){.conf = box->conf, .control = -1, .user = user, .namespaces = namespaces};
    bool ok = source >= 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) == 0 &&
              pipe2(go, O_CLOEXEC) == 0 && pipe2(report, O_CLOEXEC) == 0 &&
              setsockopt(control[0], SOL_SOCKET, SO_PASSCRED, &one, sizeof one) == 0;
    if (!ok) err_set(err, "code sandbox: descriptors: %s", strerror(errno));
    if (ok) {
        box->pid = box_clone(box);
        if (box->pid == 0) {
            close(go[1]); /* so that read ends when the worker dies */
            child_main(box, control[1], source, go[0], report[1]);
        }
        fd_close(&report[1]); /* so that read ends with the child's exec */
        ok = child_start(box, go, report, err);
    }
    box->control = control[0];
    fd_close(&control[1]), fd_close(&go[0]), fd_close(&go[1]), fd_close(&report[0]), fd_close(&report[1]);
    fd_close(&source);
    if (ok) ok = conf_send(box, err);
    if (!ok) box_close(box);
    return ok;
}

bool box_open(Box *box, const BoxConf *conf, Err *err) {
    box->conf = *conf;
    if (box_try(box, true, true, err)) return true;
    if (!conf->weak) {
        Err why = *err;
        return err_set(err,
                       "%.300s. Allow user namespaces, or run candidates with less isolation by "
                       "--allow_weak_sandbox",
                       why.msg);
    }
    return box_try(box, false, true, err) || box_try(box, false, false, err); /* real root may have namespaces */
}

static void folder_remove(const char *folder) {
    char cell[80];
    snprintf(cell, sizeof cell, "%s/cell", folder);
    rmdir(cell); /* the box empties it after each run */
    rmdir(folder);
}

void box_close(Box *box) {
    if (box->pid > 0) {
        kill(box->pid, SIGKILL);
        while (waitpid(box->pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    if (box->control >= 0) close(box->control);
    if (box->folder[0]) folder_remove(box->folder);
    *box = (Box){.conf = box->conf, .control = -1};
}
