/* Loaded into QEMU (LD_PRELOAD), so that nobody has to wait for a guest that only waits: the clock that drives an idle
 * guest's own clock (docs/devel/tcg-icount.rst, "sleep=on") runs faster by the factor in the file HASTE, a 32-bit
 * number that may change at any time. A guest that works counts its instructions as usual. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define SECOND 1000000000LL

static const uint32_t usual = 1;
static const volatile uint32_t *times = &usual;
static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("HASTE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *map = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *times, PROT_READ, MAP_SHARED, file, 0);
    if (map != MAP_FAILED)
        times = map;
    real_clock_gettime = REAL(clock_gettime);
    real_ppoll = REAL(ppoll);
}

/* QEMU's clock: what it was when the number last changed, and since then that many times as much. */
static int64_t hasty(int64_t now)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static uint32_t factor = 1;
    static int64_t from, shown;
    pthread_mutex_lock(&lock);
    if (factor != *times) {
        shown += (now - from) * factor;
        from = now;
        factor = *times;
    }
    int64_t time = shown + (now - from) * factor;
    pthread_mutex_unlock(&lock);
    return time;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    if (!real_clock_gettime)
        real_clock_gettime = REAL(clock_gettime);
    int result = real_clock_gettime(clock, time);
    if (result == 0 && clock == CLOCK_MONOTONIC) {
        int64_t now = hasty(time->tv_sec * SECOND + time->tv_nsec);
        time->tv_sec = now / SECOND;
        time->tv_nsec = now % SECOND;
    }
    return result;
}

int ppoll(struct pollfd *files, nfds_t count, const struct timespec *limit, const sigset_t *mask)
{
    struct timespec shorter;
    if (limit) {
        int64_t time = (limit->tv_sec * SECOND + limit->tv_nsec) / *times;
        shorter.tv_sec = time / SECOND;
        shorter.tv_nsec = time % SECOND;
        limit = &shorter;
    }
    return real_ppoll(files, count, limit, mask);
}
