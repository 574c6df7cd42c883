/* Makes calls on files fail as a disk does: preloaded into a process, it looks for an order in the file
 * that $FAULTS names: CALL SUFFIX ERRNO TIMES. A call of this name on a path that ends like that fails with
 * this error, so many times; then the order is removed. "-" stands for a folder. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

static int ends_like(const char *path, const char *suffix) {
    struct stat found;
    if (strcmp(suffix, "-") == 0)
        return stat(path, &found) == 0 && S_ISDIR(found.st_mode);
    size_t length = strlen(path), wanted = strlen(suffix);
    return length >= wanted && strcmp(path + length - wanted, suffix) == 0;
}

/* Whether this call is to fail; sets errno. Calls of its own go past this library. */
static int fails(const char *call, const char *path) {
    const char *orders = getenv("FAULTS");
    if (!orders || !path)
        return 0;
    int error = 0;
    pthread_mutex_lock(&turn);
    long file = syscall(SYS_openat, AT_FDCWD, orders, O_RDWR | O_CLOEXEC, 0);
    if (file >= 0) {
        char text[256] = "", wanted[32], suffix[128];
        int number, times;
        syscall(SYS_read, file, text, sizeof text - 1);
        if (sscanf(text, "%31s %127s %d %d", wanted, suffix, &number, &times) == 4 &&
            strcmp(wanted, call) == 0 && ends_like(path, suffix)) {
            error = number;
            int length = snprintf(text, sizeof text, "%s %s %d %d\n", wanted, suffix, number, times - 1);
            if (times == 1) {
                syscall(SYS_unlinkat, AT_FDCWD, orders, 0);
            } else {
                syscall(SYS_ftruncate, file, 0);
                syscall(SYS_pwrite64, file, text, length, 0);
            }
        }
        syscall(SYS_close, file);
    }
    pthread_mutex_unlock(&turn);
    if (error)
        errno = error;
    return error != 0;
}

static int fails_at(const char *call, int fd) {
    char link[64], path[4096];
    if (!getenv("FAULTS") || access(getenv("FAULTS"), F_OK) != 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return fails(call, path);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    return fails_at("write", fd) ? -1 : REAL(write)(fd, bytes, length);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    return fails_at("write", fd) ? -1 : REAL(pwrite64)(fd, bytes, length, at);
}

ssize_t pread64(int fd, void *bytes, size_t length, off64_t at) {
    return fails_at("read", fd) ? -1 : REAL(pread64)(fd, bytes, length, at);
}

int fsync(int fd) { return fails_at("sync", fd) ? -1 : REAL(fsync)(fd); }

int fdatasync(int fd) { return fails_at("sync", fd) ? -1 : REAL(fdatasync)(fd); }

int rename(const char *from, const char *to) { return fails("rename", from) ? -1 : REAL(rename)(from, to); }

int unlink(const char *path) { return fails("unlink", path) ? -1 : REAL(unlink)(path); }

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    const char *call = flags & O_CREAT ? "create" : "open";
    return fails(call, path) ? -1 : REAL(open64)(path, flags, mode);
}
