/* Preloaded into a program: its clock is CLOCK_AHEAD seconds ahead, and synchronised or not, as CLOCK_SYNCHRONISED says
 * (1 or 0). */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *now)
{
    const char *ahead = getenv("CLOCK_AHEAD");
    int failed = syscall(SYS_clock_gettime, id, now);
    if (!failed && id == CLOCK_REALTIME && ahead)
        now->tv_sec += atol(ahead);
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;
    int failed = clock_gettime(CLOCK_REALTIME, &precise);
    (void)zone;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *to)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to)
        *to = now.tv_sec;
    return now.tv_sec;
}

int adjtimex(struct timex *state)
{
    const char *synchronised = getenv("CLOCK_SYNCHRONISED");
    int result = syscall(SYS_adjtimex, state);
    return synchronised ? (atoi(synchronised) ? TIME_OK : TIME_ERROR) : result;
}
