/* Loaded into firstboot on the guest (LD_PRELOAD, by a drop-in of the test): stops it at one point, where the test
 * pulls the plug, or drops a sync, so that the test can show that it would notice.
 *
 * GATE=WHEN WHAT [PATH]   WHEN is before or after; WHAT is rename (to a path that ends so), exchange (with one that
 *                         does), mkdir (likewise), or tpm with a command code in hexadecimal (TCG TPM 2.0 Library, part 2, TPM_CC).
 * NOSYNC=PATH             fsync of a file whose path contains this does nothing. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const char *gate(void)
{
    const char *gate = getenv("GATE");
    return gate ? gate : "";
}

static int ends(const char *path, const char *end)
{
    size_t a = strlen(path), b = strlen(end);
    return a >= b && strcmp(path + a - b, end) == 0;
}

/* Stops for good if this is the point: the line goes to the journal, and from there to the test. */
static void pass(const char *when, const char *what, const char *path)
{
    char is_when[8], is_what[16], is_path[256];
    if (sscanf(gate(), "%7s %15s %255s", is_when, is_what, is_path) != 3)
        return;
    if (strcmp(when, is_when) || strcmp(what, is_what) || !ends(path, is_path))
        return;
    dprintf(2, "gate: %s %s %s\n", when, what, path);
    for (;;)
        pause();
}

int rename(const char *from, const char *to)
{
    pass("before", "rename", to);
    int result = REAL(rename)(from, to);
    pass("after", "rename", to);
    return result;
}

int renameat2(int from_in, const char *from, int to_in, const char *to, unsigned flags)
{
    pass("before", "exchange", to);
    int result = REAL(renameat2)(from_in, from, to_in, to, flags);
    pass("after", "exchange", to);
    return result;
}

int mkdir(const char *path, mode_t mode)
{
    pass("before", "mkdir", path);
    int result = REAL(mkdir)(path, mode);
    pass("after", "mkdir", path);
    return result;
}

static char code[16];

/* A TPM command has its code at byte 6 (TCG TPM 2.0 Library, part 1, "Command/Response Structure"), after the tag
 * with or without sessions. */
ssize_t write(int fd, const void *data, size_t size)
{
    const unsigned char *b = data;
    if (*gate() && size >= 10 && b[0] == 0x80 && (b[1] == 1 || b[1] == 2)) {
        snprintf(code, sizeof code, "%02x%02x%02x%02x", b[6], b[7], b[8], b[9]);
        pass("before", "tpm", code);
    }
    return REAL(write)(fd, data, size);
}

ssize_t read(int fd, void *data, size_t size)
{
    ssize_t result = REAL(read)(fd, data, size);
    const unsigned char *b = data;
    if (*gate() && result >= 10 && b[0] == 0x80 && (b[1] == 1 || b[1] == 2) && *code)
        pass("after", "tpm", code);
    return result;
}

static int skipped(int fd)
{
    const char *without = getenv("NOSYNC");
    char link[64], path[4096];
    if (!without)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return 0;
    path[n] = 0;
    return strstr(path, without) != NULL;
}

int fsync(int fd)
{
    return skipped(fd) ? 0 : REAL(fsync)(fd);
}

int fdatasync(int fd)
{
    return skipped(fd) ? 0 : REAL(fdatasync)(fd);
}
