/* The farm: an HTTP server as cheap as can be, on every loopback address at once, so that what is
 * measured is the prober. It counts requests and connections itself: the truth both sides are
 * divided by. A target is an address: 127.128.0.0 + N is target N.
 *
 * usage: farm [close]  prints two ports on stdout: one that serves, and one that refuses. With
 *                      `close` every reply asks the client to close the connection behind it.
 *
 * Each line on stdin is answered by one line of JSON; the end of stdin is the end of the farm.
 *   count                      what has been seen
 *   mark INTERVAL              the same, then a new window opens: arrivals are sorted into slots of
 *                              10 ms, and the time since a target's last one is held to INTERVAL
 *   set FIRST LAST STEP KIND   how these targets answer from now on: pass, fail, hang or flap
 *   target N                   what target N has seen
 * Times are seconds of CLOCK_MONOTONIC.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 512, BUFFER = 16384, TARGETS = 1 << 17, NETWORK = 0x7F800000 };
enum { SLOT_MS = 10, SLOTS = 1 << 17, SLOTS_IN_WINDOW = 10, GAP_MS_MAX = 20000, FILES_MAX = 1 << 20 };
enum kind { PASS, FAIL, HANG, FLAP, KINDS };
static const char *const kinds[] = {"pass", "fail", "hang", "flap"};
#define REPLY(status, more) \
  "HTTP/1.1 " status "\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n" more "\r\nok\n"
static const char *const replies[2][2] = {
    {REPLY("200 OK", ""), REPLY("503 Service Unavailable", "")},
    {REPLY("200 OK", "Connection: close\r\n"),
     REPLY("503 Service Unavailable", "Connection: close\r\n")}};
static const char end[] = "\r\n\r\n";

static struct connection {
  int target, matched; /* how much of `end` has been seen */
} *connections;        /* by descriptor */
static struct target {
  double first, last, turned; /* arrivals; `turned`: the first since `set` */
  unsigned count;
  enum kind kind;
} *targets;
static unsigned *slots, *gaps; /* of the window: arrivals by time, and by lateness in ms */
static long probes, opened, open_now;
static double marked, interval, now;
static int epoll, closes;

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void tick(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  now = t.tv_sec + t.tv_nsec / 1e9;
}

static void watch(int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
}

static long fullest(void) { /* of all windows of 100 ms, slid by a slot */
  long sum = 0, most = 0;
  for (int i = 0; i < SLOTS && i <= (now - marked) * 1000 / SLOT_MS; i++) {
    sum += (long)slots[i] - (i < SLOTS_IN_WINDOW ? 0 : (long)slots[i - SLOTS_IN_WINDOW]);
    if (sum > most) most = sum;
  }
  return most;
}

static int quantile(double share) {
  long all = 0, below = 0;
  int ms = 0;
  for (int i = 0; i <= GAP_MS_MAX; i++) all += gaps[i];
  for (; ms < GAP_MS_MAX && below + gaps[ms] < share * all; ms++) below += gaps[ms];
  return all ? ms + 1 : 0;
}

static void count(void) {
  printf("{\"probes\": %ld, \"connections\": %ld, \"open\": %ld, \"fullest_100ms\": %ld, "
         "\"late_ms\": [%d, %d, %d]}\n",
         probes, opened, open_now, fullest(), quantile(.5), quantile(.99), quantile(.999));
}

static void mark(double new_interval) {
  memset(slots, 0, SLOTS * sizeof *slots);
  memset(gaps, 0, (GAP_MS_MAX + 1) * sizeof *gaps);
  marked = now;
  interval = new_interval;
}

static void set(int first, int last, int step, const char *name) {
  for (int kind = 0; kind < KINDS; kind++)
    for (int i = first; !strcmp(kinds[kind], name) && i <= last && i < TARGETS; i += step)
      targets[i].kind = kind, targets[i].turned = 0;
}

static void command(const char *line) {
  int first, last, step;
  double seconds;
  char name[16];
  if (sscanf(line, "set %d %d %d %15s", &first, &last, &step, name) == 4 && first >= 0 && step > 0)
    set(first, last, step, name);
  if (sscanf(line, "target %d", &first) == 1 && first >= 0 && first < TARGETS) {
    struct target *t = &targets[first];
    printf("{\"count\": %u, \"first\": %.6f, \"last\": %.6f, \"turned\": %.6f}\n", t->count,
           t->first, t->last, t->turned);
  } else {
    count();
  }
  if (sscanf(line, "mark %lf", &seconds) == 1) mark(seconds);
  fflush(stdout);
}

static void accept_all(int listener) {
  struct sockaddr_in address;
  socklen_t length;
  int fd;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    length = sizeof address;
    getsockname(fd, (struct sockaddr *)&address, &length);
    unsigned target = ntohl(address.sin_addr.s_addr) - NETWORK;
    connections[fd] = (struct connection){.target = target < TARGETS ? target : 0};
    opened++;
    open_now++;
    watch(fd);
  }
  if (errno != EAGAIN && errno != ECONNABORTED) die("accept");
}

static enum kind arrived(struct target *t) {
  int slot = (now - marked) * 1000 / SLOT_MS;
  int late_ms = (now - t->last - interval) * 1000;
  if (late_ms < 0) late_ms = -late_ms;
  if (slot < SLOTS) slots[slot]++;
  if (t->count++) gaps[late_ms < GAP_MS_MAX ? late_ms : GAP_MS_MAX]++;
  else t->first = now;
  if (!t->turned) t->turned = now;
  t->last = now;
  probes++;
  return t->kind == FLAP ? t->count % 2 : t->kind;
}

static void leave(int fd) {
  close(fd);
  open_now--;
}

static void answer(int fd) {
  static char buffer[BUFFER];
  struct connection *c = &connections[fd];
  ssize_t size = recv(fd, buffer, sizeof buffer, 0);
  if (size < 0 && errno == EAGAIN) return;
  if (size <= 0) {
    leave(fd);
    return;
  }
  for (ssize_t i = 0; i < size; i++) {
    c->matched = buffer[i] == end[c->matched] ? c->matched + 1 : buffer[i] == end[0];
    if (end[c->matched]) continue;
    c->matched = 0;
    enum kind kind = arrived(&targets[c->target]);
    if (kind == HANG) continue;
    const char *reply = replies[closes][kind];
    ssize_t length = strlen(reply);
    if (send(fd, reply, length, MSG_NOSIGNAL) != length) {
      leave(fd);
      return;
    }
  }
}

static int bound(int *port) { /* to every address, on a free port; what is accepted inherits */
  struct sockaddr_in address = {.sin_family = AF_INET};
  struct linger at_once = {.l_onoff = 1}; /* leaves no TIME_WAIT, on either side */
  socklen_t length = sizeof address;
  int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) die("socket");
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) die("bind");
  getsockname(fd, (struct sockaddr *)&address, &length);
  *port = ntohs(address.sin_port);
  return fd;
}

int main(int argc, char **argv) {
  struct epoll_event events[EVENTS];
  struct rlimit files;
  char line[256];
  int port, refusing, listener;

  prctl(PR_SET_PDEATHSIG, SIGKILL);
  closes = argc > 1 && !strcmp(argv[1], "close");
  getrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_max > FILES_MAX) files.rlim_max = FILES_MAX;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  connections = calloc(files.rlim_max, sizeof *connections);
  targets = calloc(TARGETS, sizeof *targets);
  slots = calloc(SLOTS, sizeof *slots);
  gaps = calloc(GAP_MS_MAX + 1, sizeof *gaps);
  epoll = epoll_create1(EPOLL_CLOEXEC);
  if (!connections || !targets || !slots || !gaps || epoll < 0) die("start");
  listener = bound(&port);
  bound(&refusing); /* nobody listens there, and nobody else can */
  if (listen(listener, 4096) < 0) die("listen");
  tick();
  mark(1);
  printf("%d %d\n", port, refusing);
  fflush(stdout);
  watch(listener);
  watch(STDIN_FILENO);
  for (;;) {
    int ready = epoll_wait(epoll, events, EVENTS, -1);
    if (ready < 0 && errno != EINTR) die("epoll_wait");
    tick();
    for (int i = 0; i < ready; i++) {
      int fd = events[i].data.fd;
      if (fd == listener) {
        accept_all(listener);
      } else if (fd == STDIN_FILENO) {
        ssize_t size = read(STDIN_FILENO, line, sizeof line - 1);
        if (size <= 0) return 0;
        line[size] = 0;
        command(line);
      } else {
        answer(fd);
      }
    }
  }
}
