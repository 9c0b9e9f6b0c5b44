/* standin_help.h: what the tests of the stand-ins share: faults, each committed in a child process whose last
 * words must name it. */
#ifndef TESTS_STANDIN_HELP_H
#define TESTS_STANDIN_HELP_H

#include "tests/ptx_help.h"

#include <cuda_runtime_api.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/ptx/standin.h"

typedef struct {
    void (*run)(void);
    const char *says;
} Fault;

static inline void faults_are_found(const Fault *faults, size_t n_faults) {
    for (size_t i = 0; i < n_faults; i++) {
        int ends[2], status;
        assert_int_equal(pipe(ends), 0);
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            dup2(ends[1], 2);
            standin_catch_faults();
            faults[i].run();
            _exit(0);
        }
        close(ends[1]);
        char said[2048];
        size_t n = 0;
        for (ssize_t got; (got = read(ends[0], said + n, sizeof said - 1 - n)) > 0;) n += (size_t)got;
        said[n] = 0;
        close(ends[0]);
        waitpid(child, &status, 0);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 86 || !strstr(said, faults[i].says))
            fail_msg("fault %zu: status %x, said: %s; expected: %s", i, (unsigned)status, said, faults[i].says);
    }
}

#endif
