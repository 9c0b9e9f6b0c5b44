/* sandbox.h: boxes in which programs run that nobody trusts. Private to reward/.
 *
 * Knows: namespaces, mounts, limits, the system call filter, how to start one cell and how it ended. Must never
 * know: tests, expected outputs, verdicts. Structs: Box (a warm Python behind all layers), Cell (one run in it).
 * Only the worker process calls this: it has one thread, so that a child may run C between clone and exec.
 * Tested by tests/test_reward_sandbox.c.
 */
#ifndef WHET_REWARD_SANDBOX_H
#define WHET_REWARD_SANDBOX_H

#include <sys/types.h>

#include "kernels/base.h"

/* A layer of isolation, as measured from inside a cell and from outside. */
typedef enum {
    LAYER_USER,  /* user namespace */
    LAYER_MOUNT, /* mount namespace, read-only system, nothing else of this machine's files */
    LAYER_PID,   /* PID namespace of the cell's own: its end is the end of every process in it */
    LAYER_NET,   /* network namespace with nothing in it */
    LAYER_IPC,
    LAYER_UTS,
    LAYER_TMP,      /* private /tmp of limited size */
    LAYER_SECCOMP,  /* list of allowed system calls; sockets, ptrace, mounts and the like are refused */
    LAYER_RLIMITS,  /* memory, processes, file size really refused beyond the limit */
    LAYER_NO_PRIVS, /* no new privileges, no capabilities */
    LAYER_LANDLOCK, /* only where the kernel has it */
    LAYER_COUNT
} Layer;

const char *layer_name(Layer layer);
/* "user mount pid ...": the names of the set bits. Appends to out. */
void layers_text(unsigned layers, Buf *out);

typedef enum { BOX_CANDIDATE, BOX_JUDGE } BoxRole;

typedef struct {
    BoxRole role;
    int number;       /* of this worker's boxes; gives each an identity of its own where that is possible */
    char python[256]; /* the interpreter, somewhere under /usr */
    bool weak;        /* go on with fewer namespaces when the machine refuses them */
    bool quick;       /* don't wait for the child's exec: if it fails, the box is found dead */
} BoxConf;

typedef struct {
    BoxConf conf;
    pid_t pid;       /* process 1 of the box; 0 when there is none */
    int control;     /* one message per event; readable when the box has said something or has died */
    bool namespaces; /* PID and mount namespaces hold */
    bool user;       /* the user namespace holds */
    bool ready;      /* the Python is warm */
    char folder[64]; /* without mount namespace: where its cells' folders lie; else empty */
} Box;

bool box_open(Box *box, const BoxConf *conf, Err *err); /* returns before the Python is warm; box_read tells */
void box_close(Box *box);                               /* kills what runs in it, waits for its end */
bool box_find_python(char *path, size_t room, Err *err);

/* What a cell may use. Bytes, seconds, numbers of processes. */
typedef struct {
    double wall_s;
    double cpu_s;
    int64_t memory; /* resident, all processes of the cell together */
    int64_t space;  /* address space of each process */
    int64_t file;   /* each file */
    int64_t disk;   /* /tmp as a whole */
    int64_t output; /* stdout */
    int procs;
} Limits;

typedef enum {
    END_NONE,   /* still running */
    END_EXIT,   /* by itself: see status */
    END_WALL,   /* we killed it: wall time */
    END_CPU,    /* processor time */
    END_MEMORY, /* resident memory */
    END_OUTPUT, /* too much output */
    END_TAKEN,  /* we killed it because nothing more was wanted */
    END_BROKEN, /* killed by somebody else, or the sandbox failed: not the program's doing */
} CellEnd;

typedef struct {
    Box *box;
    Limits limits;
    CellEnd end;
    bool active;     /* from cell_start until the box has said that all its processes are gone */
    bool reported;   /* process 1 told how the run ended */
    pid_t keeper;    /* whose end ends all of the cell, as seen from here; 0 before it is known */
    int pidfd;       /* of the same, -1 before */
    pid_t pid;       /* the run itself; 0 before it is known */
    int status;      /* as wait() gives it, of the run itself */
    double started;  /* clock */
    double killed;   /* clock, 0 while it lives */
    double seconds;  /* wall time of the run */
    double cpu_s;    /* processor time */
    int64_t peak;    /* bytes resident, the most that was seen */
    bool crowded;    /* as many processes as the limit allows were seen */
    char error[200]; /* why END_BROKEN */
} Cell;

/* fds: stdin, stdout, stderr, payload; they stay the caller's. extra: further JSON members, "" or ", \"k\": 1". */
bool cell_start(Cell *cell, Box *box, const char *kind, const char *extra, const Limits *limits, const int fds[4],
                Err *err);
/* Takes one message of the box. False when the box is dead: then the cell, if active, has END_BROKEN. */
bool box_read(Box *box, Cell *cell);
void cell_kill(Cell *cell, CellEnd why);
/* To be called every few milliseconds while a cell is active: deadlines, memory, processor time, processes. */
void cell_watch(Cell *cell, double now);

/* The system call filter as BPF, hex-encoded into out. */
bool filter_build(Buf *out, Err *err);

/* Runs a cell that tries what each layer forbids; returns the layers that held. err only when it could not run. */
bool layers_measure(Box *box, unsigned *layers, Err *err);

/* The Python sources, from reward/ *.py at build time. */
extern const char source_box[], source_wire[], source_candidate[], source_judge[], source_probe[];

#endif
