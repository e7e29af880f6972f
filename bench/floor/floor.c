/* The floor: what probing costs when nothing is decided. A GET sent on its turn, the reply read to
 * the end its Content-Length gives, on one kept connection a target or, with `new`, on a new one
 * for each probe that is closed at once behind the reply (linger 0: no TIME_WAIT is left). No
 * deadlines, no thresholds, no bus: whatever a real prober costs above this is its own.
 *
 * usage: floor RATE SECONDS [new] < "ADDRESS PORT" lines
 * Probes all targets in turn, RATE a second in ticks of 10 ms (0: each again as soon as it has
 * answered) until the time is over or SIGTERM comes, and prints counts and its CPU time as JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 512, BUFFER = 1024, TICK_MS = 10 };
struct target {
  int fd, busy;
  size_t got; /* of the reply in `buffer` */
  char buffer[BUFFER], request[128];
  int request_size, dialling;
  struct sockaddr_in address;
};
static struct target *targets;
static long count, sent, passed, failed, skipped;
static int epoll, fresh;
static volatile sig_atomic_t over;

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void end(int sign) {
  over = sign;
}

static double now_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static double cpu_s(void) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void lose(struct target *t) {
  failed += t->busy;
  t->busy = 0;
  close(t->fd);
  t->fd = -1;
}

static void ask(struct target *t) {
  if (send(t->fd, t->request, t->request_size, MSG_NOSIGNAL) != t->request_size) lose(t);
}

/* The request follows when the connection is there, as it must on any network but loopback; and
 * the handshake's last packet waits for it, since a segment that carries both saves one. */
static void dial(struct target *t) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u64 = t - targets};
  struct linger at_once = {.l_onoff = 1};
  int off = 0;
  t->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (t->fd < 0) die("socket");
  t->dialling = 1;
  setsockopt(t->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  setsockopt(t->fd, IPPROTO_TCP, TCP_QUICKACK, &off, sizeof off);
  if (connect(t->fd, (struct sockaddr *)&t->address, sizeof t->address) < 0 && errno != EINPROGRESS)
    lose(t);
  else if (epoll_ctl(epoll, EPOLL_CTL_ADD, t->fd, &event) < 0)
    die("epoll_ctl");
}

static void start(struct target *t) {
  if (t->busy || (t->fd < 0 && !fresh)) {
    skipped++;
    return;
  }
  t->busy = 1;
  t->got = 0;
  sent++;
  if (fresh) dial(t); else ask(t);
}

/* Returns 1 when the reply is complete, 0 when more must come, -1 when it makes no sense. */
static int complete(struct target *t) {
  t->buffer[t->got] = 0;
  char *body = strstr(t->buffer, "\r\n\r\n");
  if (!body) return t->got < BUFFER - 1 ? 0 : -1;
  char *length = strcasestr(t->buffer, "\r\nContent-Length:");
  if (strncmp(t->buffer, "HTTP/1.1 ", 9) || !length || length > body) return -1;
  size_t whole = body + 4 - t->buffer + strtoul(length + 17, NULL, 10);
  return whole >= BUFFER ? -1 : t->got >= whole;
}

static void receive(struct target *t, int again) {
  ssize_t size = recv(t->fd, t->buffer + t->got, BUFFER - 1 - t->got, 0);
  if (size < 0 && errno == EAGAIN) return;
  if (size <= 0) {
    lose(t);
    return;
  }
  t->got += size;
  int done = complete(t);
  if (done == 0) return;
  if (done < 0) {
    lose(t);
    return;
  }
  t->busy = 0;
  if (t->buffer[9] == '2') passed++; else failed++;
  if (fresh) lose(t);
  if (again) start(t);
}

static void happen(const struct epoll_event *event, int again) {
  struct target *t = &targets[event->data.u64];
  if (t->fd < 0) return;
  if (fresh && t->dialling && event->events & EPOLLOUT) {
    t->dialling = 0;
    ask(t);
  }
  if (event->events & EPOLLIN) receive(t, again);
  else if (event->events & (EPOLLERR | EPOLLHUP)) lose(t);
}

static void keep(struct target *t) {
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = t - targets};
  int on = 1;
  t->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (t->fd < 0) die("socket");
  if (connect(t->fd, (struct sockaddr *)&t->address, sizeof t->address) < 0) die("connect");
  setsockopt(t->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, t->fd, &event) < 0) die("epoll_ctl");
}

static void load(void) {
  char host[64];
  int port;
  while (scanf("%63s %d", host, &port) == 2) {
    targets = realloc(targets, (count + 1) * sizeof *targets);
    struct target *t = &targets[count++];
    *t = (struct target){.fd = -1};
    t->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
    t->request_size = snprintf(t->request, sizeof t->request,
                               "GET /health HTTP/1.1\r\nHost: %s:%d\r\n\r\n", host, port);
    if (inet_pton(AF_INET, host, &t->address.sin_addr) != 1) die("target");
  }
}

int main(int argc, char **argv) {
  if (argc < 3) return fprintf(stderr, "usage: floor RATE SECONDS [new] < targets\n"), 2;
  double rate = atof(argv[1]), seconds = atof(argv[2]);
  struct epoll_event events[EVENTS];
  struct rlimit files;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGTERM, end);
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  fresh = argc > 3 && !strcmp(argv[3], "new");
  epoll = epoll_create1(EPOLL_CLOEXEC);
  load();
  for (long i = 0; !fresh && i < count; i++) keep(&targets[i]);
  if (!count) return fprintf(stderr, "floor: no targets on stdin\n"), 2;
  printf("probing\n"); /* from here on it costs what it costs */
  fflush(stdout);
  double cpu = cpu_s(), began = now_s(), now = began, tick = began;
  long due = 0;
  if (rate <= 0)
    for (long i = 0; i < count; i++) start(&targets[i]);
  while (now < began + seconds && !over) {
    int wait_ms = (int)((tick - now) * 1e3) + 1;
    int ready = epoll_wait(epoll, events, EVENTS, wait_ms > 0 ? wait_ms : 0);
    for (int i = 0; i < ready; i++) happen(&events[i], rate <= 0);
    now = now_s();
    if (now < tick) continue;
    tick += TICK_MS / 1e3;
    if (tick < now) tick = now; /* late: skip, do not hurry */
    for (long to = (now - began) * rate; due < to; due++) start(&targets[due % count]);
  }
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  printf("{\"probes\": %ld, \"passed\": %ld, \"failed\": %ld, \"skipped\": %ld, "
         "\"cpu_seconds\": %.6f, \"cpu_us_per_probe\": %.3f, \"rss_bytes\": %ld}\n",
         sent, passed, failed, skipped, cpu_s() - cpu,
         passed ? (cpu_s() - cpu) * 1e6 / passed : 0.0, usage.ru_maxrss * 1024L);
  return 0;
}
