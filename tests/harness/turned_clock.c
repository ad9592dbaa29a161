/* A wall clock that a test turns while a process runs: loaded before libc, it adds the seconds in the file TURNED_CLOCK
 * to CLOCK_REALTIME and leaves every other clock alone. Debian's faketime also touches sleeping by CLOCK_MONOTONIC. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long turned(void) {
  char text[32] = {0};
  const char *path = getenv("TURNED_CLOCK");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0)
    return 0;
  ssize_t got = read(file, text, sizeof text - 1);
  close(file);
  return got > 0 ? strtol(text, NULL, 10) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
  int failed = (int)syscall(SYS_clock_gettime, clock, at);
  if (!failed && clock == CLOCK_REALTIME)
    at->tv_sec += turned();
  return failed;
}

/* What OpenSSL holds certificates to. */
time_t time(time_t *at) {
  struct timespec now = {0};
  clock_gettime(CLOCK_REALTIME, &now);
  if (at)
    *at = now.tv_sec;
  return now.tv_sec;
}
