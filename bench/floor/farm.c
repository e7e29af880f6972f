/* The farm: an HTTP server as cheap as can be, on every loopback address at once, so that what is
 * measured is the prober. It counts requests and connections itself: the truth both sides are
 * divided by.
 *
 * usage: farm          prints its port on stdout, answers every request with a canned 200,
 *                      prints its counts for each line on stdin, and ends when stdin does.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <signal.h>
#include <unistd.h>

enum { EVENTS = 512, BUFFER = 16384 };
static const char reply[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                            "Content-Length: 3\r\n\r\nok\n";
static const char end[] = "\r\n\r\n";
static unsigned char *matched; /* by descriptor: how much of `end` has been seen */
static long probes, connections;
static int epoll;

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void watch(int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
}

static void count(void) {
  printf("{\"probes\": %ld, \"connections\": %ld}\n", probes, connections);
  fflush(stdout);
}

static void accept_all(int listener) {
  int fd, on = 1;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    matched[fd] = 0;
    connections++;
    watch(fd);
  }
  if (errno != EAGAIN && errno != ECONNABORTED) die("accept");
}

static void answer(int fd) {
  static char buffer[BUFFER];
  ssize_t size = recv(fd, buffer, sizeof buffer, 0);
  if (size < 0 && errno == EAGAIN) return;
  if (size <= 0) {
    close(fd);
    return;
  }
  for (ssize_t i = 0; i < size; i++) {
    if (buffer[i] == end[matched[fd]])
      matched[fd]++;
    else
      matched[fd] = buffer[i] == end[0];
    if (matched[fd] < sizeof end - 1) continue;
    matched[fd] = 0;
    probes++;
    if (send(fd, reply, sizeof reply - 1, MSG_NOSIGNAL) != sizeof reply - 1) {
      close(fd);
      return;
    }
  }
}

int main(void) {
  struct sockaddr_in address = {.sin_family = AF_INET}; /* every address, a free port */
  struct epoll_event events[EVENTS];
  struct rlimit files;
  socklen_t length = sizeof address;
  char line[256];
  int on = 1;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

  prctl(PR_SET_PDEATHSIG, SIGKILL);
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  matched = calloc(files.rlim_max, 1);
  epoll = epoll_create1(EPOLL_CLOEXEC);
  if (!matched || epoll < 0 || listener < 0) die("start");
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0) die("bind");
  if (listen(listener, 4096) < 0) die("listen");
  getsockname(listener, (struct sockaddr *)&address, &length);
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  watch(listener);
  watch(STDIN_FILENO);
  for (;;) {
    int ready = epoll_wait(epoll, events, EVENTS, -1);
    if (ready < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < ready; i++) {
      int fd = events[i].data.fd;
      if (fd == listener) {
        accept_all(listener);
      } else if (fd == STDIN_FILENO) {
        if (read(STDIN_FILENO, line, sizeof line) <= 0) return 0;
        count();
      } else {
        answer(fd);
      }
    }
  }
}
