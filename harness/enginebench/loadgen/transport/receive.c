/* Reads many connections with kernel time stamps, and handles expected events without Python.
 *
 * Expected events: a connection may have a pattern (the bytes before and after the text of an event that is an HTTP chunk of its own).
 * Time stamps and texts of matching events are stored here until `eb_take`; all other data are passed on unchanged.
 *
 * Time stamps: the kernel's receive time (SO_TIMESTAMPNS), so a late read does not make an event late. All data of one read share a time
 * stamp. While reads are late, a read therefore asks for no more bytes than the server usually sends at once: until data are acknowledged,
 * the kernel keeps separate arrivals separate, each with its own time.
 *
 * Acknowledgements: to acknowledge every read costs a tenth of the CPU time and keeps fewer arrivals separate. They are delayed if the
 * server is known not to wait for them; `probe` finds out.
 *
 * Does not know: HTTP beyond the end of a head and of a chunk, JSON, requests, time-outs. Built by hatch_build.py, used through ctypes
 * (library.py). Plain C for Linux, independent of Python's headers and version.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

enum {
  VERSION = 8,                    /* of the interface declared in library.py */
  READY = 256,                    /* most connections per epoll call */
  READ = 64 << 10,                /* most bytes of one read */
  CARRY = 8 << 10,                /* longest incomplete event that is kept */
  ARENA = READY * (READ + CARRY), /* used only for data that were not recognised */
  WAITS = 256,                    /* steps of the wait-time histogram, eight per octave of microseconds */
  LAST_CHUNK = 5,                 /* bytes */
  HEAD_STEP = 64,                 /* bytes to read at a time within a response head; few, so that at most the first token comes with it */
  CLOCK_TRIES = 5,
  CLOCK_APART_NS = 2000, /* if two clock readings are further apart, the thread was interrupted between them */
  STEP_NS = 1000000,     /* if the wall clock moves this much between two drains, it was set */
  USABLE_TRIES = 100,    /* of 1 ms each */
  BEHIND_NS = 200000,    /* if reads wait longer than this, several events of a connection may wait */
  TOGETHER_NS = 2000,    /* data that arrive within this time arrived together */
  STAY_NS = 3000000,     /* longest duration of a drain without records */
  EARLY_NS = 100000,     /* a drain ends this long before the event loop is needed, because sleeps overrun */
  CROWD_NS = 50000,      /* if the mean time between reads is shorter, sleep this long to batch them (sleeps take twice as long) */
  HASTE_NS = 1000000,    /* no such sleep if the events of one connection are closer than this */
  SMALL = 500,           /* bytes; less than a segment holds on nearly every network */
  SND_MSS_AT = 16,       /* offset of tcpi_snd_mss in the kernel's struct tcp_info; the C library's struct may be shorter */
  SEGS_OUT_AT = 136,     /* offset of tcpi_segs_out */
  CHANCES = 6,           /* events after which a server is assumed to wait for acknowledgements unless one showed otherwise */
};

enum acks { USUAL, PROBE, DELAYED };

struct record {
  int32_t fd;
  int32_t state; /* 0 open, 1 closed by the peer, -errno */
  int64_t stamp_ns;
  int64_t at, size; /* unrecognised bytes; size 0 and open: many events are stored, take them */
  int64_t held;     /* number of stored events, to be taken first */
};

struct connection {
  int capacity, count, room; /* events: most to store, stored, allocated */
  int64_t *stamps;
  int32_t *lengths;
  char *texts;
  size_t text_bytes, text_room;
  char *pattern; /* head, then closing */
  size_t head, closing;
  char *carry; /* the start of an incomplete event */
  size_t carried;
  size_t usual;    /* bytes that the server sends at once: the smallest read of whole events; READ: cannot be determined; 0: unknown */
  int64_t last_ns; /* arrival of the last read data */
  int ended;       /* the data passed on last ended with the last chunk of a response */
  int ending;      /* no more expected events follow, but the response has not ended */
  int probed, chances, nodelay_events; /* see `probe`: whether to probe; events; those sent before an acknowledgement */
  int64_t read_ns;                     /* time just after the last read; 0: unknown */
  uint32_t segments;                   /* segments sent until then */
  int alone;                           /* the last read was one small event that had arrived after the read before */
  uint32_t alone_after;                /* segments sent before that read */
};

struct receiver {
  /* shared with receiver.py */
  int64_t free_until_ns;     /* set by Python: before this time the event loop has no other scheduled work */
  int64_t loop_waiters;      /* set by Python: number of other operations that wait for the event loop */
  int64_t acks;              /* set by Python before the first connection: enum acks */
  int64_t nodelay_events;    /* while probing: events sent before the previous one was acknowledged */
  int64_t nagle_connections; /* while probing: connections with enough events, but none of these */
  int64_t pending;           /* events stored for all connections */
  int64_t last_event_ns;     /* arrival of the last recognised event */
  int64_t reads;
  int64_t unstamped;         /* reads without a kernel time stamp; they have the time of the read */
  int64_t waits[WAITS];      /* histogram of the time that reads waited; see `count_wait` */
  int64_t *stamps;           /* result of the last eb_take */
  int32_t *lengths;
  char *texts;
  int64_t text_bytes;
  struct record records[3 * READY];
  /* private */
  int epoll, count, slots;
  struct connection **connections; /* by file descriptor */
  int64_t offset_ns;               /* wall clock - monotonic clock */
  int stepped;                     /* the wall clock was set since the last drain */
  int behind;                      /* reads are late */
  size_t usual;                    /* the smallest of all connections */
  int added;                       /* number of connections so far */
  int coarse;                      /* no epoll_pwait2: timeouts have a resolution of 1 ms */
  int64_t left_ns;                 /* end of the last drain */
  int64_t turned_ns, gap_ns;       /* time of the last epoll result; moving average of the time between reads */
  size_t used;
  char arena[ARENA];
};

static int64_t clock_ns(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Measures the offset between the clocks again, because the wall clock is slewed and set. */
static void read_clocks(struct receiver *r) {
  r->stepped = 1; /* if every try is interrupted, the offset is unknown */
  for (int i = 0; i < CLOCK_TRIES; i++) {
    int64_t before = clock_ns(CLOCK_MONOTONIC), wall = clock_ns(CLOCK_REALTIME), after = clock_ns(CLOCK_MONOTONIC);
    if (r->offset_ns && after - before > CLOCK_APART_NS) continue;
    int64_t offset = wall - before - (after - before) / 2, moved = offset - r->offset_ns;
    r->stepped = r->offset_ns && (moved > STEP_NS || moved < -STEP_NS);
    r->offset_ns = offset;
    return;
  }
}

/* The kernel's receive time on the monotonic clock; the current time if there is none or the wall clock was set since. */
static int64_t stamp_of(struct receiver *r, struct msghdr *message) {
  for (struct cmsghdr *c = r->stepped ? NULL : CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
    if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
      struct timespec t;
      memcpy(&t, CMSG_DATA(c), sizeof t);
      return t.tv_sec * 1000000000LL + t.tv_nsec - r->offset_ns;
    }
  r->unstamped++;
  return clock_ns(CLOCK_MONOTONIC);
}

struct receiver *eb_open(void) {
  struct receiver *r = calloc(1, sizeof *r);
  if (!r) return NULL;
  r->epoll = epoll_create1(EPOLL_CLOEXEC);
  if (r->epoll < 0) {
    free(r);
    return NULL;
  }
  read_clocks(r);
  return r;
}

int eb_version(void) { return VERSION; }

static int stamped(int fd) {
  int on = 1;
  return setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
}

/* Whether this system stamps received data, tested on a loopback connection. The receiving socket stays open: the kernel starts to stamp
 * some time after the first socket enables it, and stops when the last one closes. */
int eb_usable(void) {
  struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof loopback;
  struct sockaddr *address = (struct sockaddr *)&loopback;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), receiving = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int sending = -1, seen = 0;
  if (!stamped(receiving) && !bind(listener, address, size) && !listen(listener, 1) && !getsockname(listener, address, &size) &&
      !connect(receiving, address, size))
    sending = accept(listener, NULL, NULL);
  for (int i = 0; sending >= 0 && !seen && i < USABLE_TRIES; i++) {
    char byte = 0, control[128];
    struct iovec room = {&byte, 1};
    struct msghdr message = {.msg_iov = &room, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (send(sending, &byte, 1, MSG_NOSIGNAL) != 1) break;
    seen = recvmsg(receiving, &message, MSG_DONTWAIT) == 1 && message.msg_controllen > 0; /* the peer may be a stranger: never block */
    if (!seen) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  }
  if (listener >= 0) close(listener);
  if (sending >= 0) close(sending);
  if (receiving >= 0 && !seen) close(receiving);
  return seen;
}

/* Acknowledges received data with the next data sent, at every second read, or after the kernel's delay, instead of at every read. The
 * kernel ends this mode after that delay has passed once. */
static void delay_acks(int fd) {
  int quick = 0;
  setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &quick, sizeof quick);
}

/* Number of segments that fd has sent, including acknowledgements; 0: unknown. mss: most bytes per segment. */
static uint32_t segments_sent(int fd, uint32_t *mss) {
  char info[SEGS_OUT_AT + sizeof(uint32_t)];
  socklen_t size = sizeof info;
  uint32_t sent = 0;
  *mss = 0;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &size) || size < sizeof info) return 0;
  memcpy(mss, info + SND_MSS_AT, sizeof *mss);
  memcpy(&sent, info + SEGS_OUT_AT, sizeof sent);
  return sent;
}

int eb_fd(const struct receiver *r) { return r->epoll; }

static struct connection *find(const struct receiver *r, int fd) { return fd >= 0 && fd < r->slots ? r->connections[fd] : NULL; }

/* Adds a connection: enables kernel time stamps and reads it from now on. capacity: stored events at which a record asks to take them.
 * Returns 0 or -errno. */
int eb_add(struct receiver *r, int fd, int capacity) {
  if (fd >= r->slots) {
    int slots = fd + 64;
    struct connection **grown = realloc(r->connections, slots * sizeof *grown);
    if (!grown) return -ENOMEM;
    memset(grown + r->slots, 0, (slots - r->slots) * sizeof *grown);
    r->connections = grown;
    r->slots = slots;
  }
  if (stamped(fd)) return -errno;
  struct connection *c = calloc(1, sizeof *c);
  if (!c) return -ENOMEM;
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  if (epoll_ctl(r->epoll, EPOLL_CTL_ADD, fd, &event)) {
    int error = errno;
    free(c);
    return -error;
  }
  if (r->acks == DELAYED) delay_acks(fd);
  c->probed = r->acks == PROBE && r->added++ % 2; /* every other connection, so that half of the responses are not delayed */
  c->capacity = capacity;
  r->connections[fd] = c;
  return 0;
}

/* Call before fd is closed. Drops its stored events. */
void eb_remove(struct receiver *r, int fd) {
  struct connection *c = find(r, fd);
  if (!c) return;
  epoll_ctl(r->epoll, EPOLL_CTL_DEL, fd, NULL);
  r->pending -= c->count;
  r->connections[fd] = NULL;
  free(c->stamps);
  free(c->lengths);
  free(c->texts);
  free(c->pattern);
  free(c->carry);
  free(c);
}

void eb_close(struct receiver *r) {
  for (int fd = 0; fd < r->slots; fd++) eb_remove(r, fd);
  close(r->epoll);
  free(r->connections);
  free(r);
}

/* Moves the stored events of fd, oldest first, to stamps, lengths and texts of the receiver, valid until the next call. Returns their
 * number. */
int eb_take(struct receiver *r, int fd) {
  struct connection *c = find(r, fd);
  if (!c) return 0;
  int count = c->count;
  r->stamps = c->stamps;
  r->lengths = c->lengths;
  r->texts = c->texts;
  r->text_bytes = c->text_bytes;
  r->pending -= count;
  c->count = 0;
  c->text_bytes = 0;
  return count;
}

static int store(struct receiver *r, struct connection *c, int64_t stamp, const char *text, size_t size) {
  if (c->count == c->room) {
    int room = c->room ? 2 * c->room : 16;
    int64_t *stamps = realloc(c->stamps, room * sizeof *stamps);
    if (stamps) c->stamps = stamps;
    int32_t *lengths = realloc(c->lengths, room * sizeof *lengths);
    if (lengths) c->lengths = lengths;
    if (!stamps || !lengths) return 0;
    c->room = room;
  }
  if (c->text_bytes + size > c->text_room) {
    size_t room = 2 * (c->text_bytes + size);
    char *texts = realloc(c->texts, room);
    if (!texts) return 0;
    c->texts = texts;
    c->text_room = room;
  }
  memcpy(c->texts + c->text_bytes, text, size);
  c->text_bytes += size;
  c->stamps[c->count] = stamp;
  c->lengths[c->count++] = (int32_t)size;
  r->pending++;
  r->last_event_ns = stamp;
  return 1;
}

static int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 'a' ^ 'A';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Length of the HTTP chunk at the start of data, including its size line (start bytes) and the final CRLF; 0: no chunk, or the empty last
 * one; -1: maybe, more data needed. */
static long chunk(const char *data, size_t size, size_t *start) {
  size_t digits = 0, bytes = 0;
  for (int d; digits < size && digits < 7 && (d = digit(data[digits])) >= 0; digits++) bytes = 16 * bytes + d;
  if (digits == size) return size && data[0] == '0' ? 0 : -1;
  if (!digits || data[0] == '0' || data[digits] != '\r') return 0;
  if (digits + 1 == size) return -1;
  *start = digits + 2;
  return data[digits + 1] == '\n' ? (long)(*start + bytes + 2) : 0;
}

/* Length of the expected event at the start of data; 0: none; -1: maybe, more data needed. */
static long event(const struct connection *c, const char *data, size_t size, const char **text, size_t *text_bytes) {
  size_t start = 0, around = c->head + c->closing;
  long whole = chunk(data, size, &start);
  if (whole <= 0) return whole;
  if ((size_t)whole <= start + around || whole > CARRY) return 0;
  size_t here = size - start < c->head ? size - start : c->head;
  if (memcmp(data + start, c->pattern, here)) return 0;
  if ((size_t)whole > size) return -1;
  if (memcmp(data + whole - c->closing, c->pattern + c->head, c->closing)) return 0;
  *text = data + start + c->head;
  *text_bytes = whole - start - around;
  return whole;
}

/* Bytes missing after data to complete its last chunk (for an incomplete response head: a guess). 0: none missing, or unknown. */
static size_t missing(const char *data, size_t size) {
  size_t at = 0, start;
  if (size > 5 && !memcmp(data, "HTTP/", 5)) {
    const char *body = memmem(data, size, "\r\n\r\n", 4);
    if (!body) return HEAD_STEP;
    at = body - data + 4;
  }
  while (at < size) {
    long whole = chunk(data + at, size - at, &start);
    if (whole <= 0 || whole > CARRY) return 0;
    at += (size_t)whole;
  }
  return at - size;
}

/* Keeps the start of an incomplete event. Returns whether it fits. */
static int carry(struct connection *c, const char *start, size_t size) {
  if (size > CARRY || (!c->carry && !(c->carry = malloc(CARRY)))) return 0;
  memcpy(c->carry, start, size);
  c->carried = size;
  return 1;
}

/* Sets the pattern of the next events of fd: a chunk with head, a text, and closing without its CRLF. head NULL: unknown. rest: bytes that
 * may be the start of such an event. Returns whether rest was accepted (true if it is empty). */
int eb_expect(struct receiver *r, int fd, const char *head, size_t head_bytes, const char *closing, size_t closing_bytes,
              const char *rest, size_t rest_bytes) {
  struct connection *c = find(r, fd);
  if (!c) return 0;
  free(c->pattern);
  c->pattern = NULL;
  c->ending = !head && !c->ended;
  if (!head || !(c->pattern = malloc(head_bytes + closing_bytes))) return !rest_bytes;
  memcpy(c->pattern, head, head_bytes);
  memcpy(c->pattern + head_bytes, closing, closing_bytes);
  c->head = head_bytes;
  c->closing = closing_bytes;
  c->read_ns = 0;
  if (r->acks == DELAYED || c->probed) delay_acks(fd);
  const char *text;
  size_t text_bytes;
  return !rest_bytes || (event(c, rest, rest_bytes, &text, &text_bytes) < 0 && carry(c, rest, rest_bytes));
}

static void add_record(struct receiver *r, int fd, int state, int64_t stamp, const char *at, size_t size) {
  r->records[r->count++] = (struct record){fd, state, stamp, (int64_t)(intptr_t)at, (int64_t)size, find(r, fd)->count};
}

/* Adds a read to the histogram of wait times. Step n starts at n us below 8, and at (8 + n % 8) << (n / 8 - 1) us above. */
static void count_wait(struct receiver *r, int64_t waited) {
  int64_t us = waited / 1000;
  int step = 0;
  r->behind = waited > BEHIND_NS;
  if (us >= 8) {
    int octave = 63 - __builtin_clzll((uint64_t)us);
    step = (octave - 2) * 8 + (int)(us >> (octave - 3) & 7);
  } else if (us > 0) {
    step = (int)us;
  }
  r->waits[step < WAITS ? step : WAITS - 1]++;
}

/* Non-blocking recvmsg. Returns its result, or -errno. stamp: arrival of the data. A direct system call, because the C library's wrapper
 * is a cancellation point, which costs as much as the comparison of the data. */
static long read_some(struct receiver *r, int fd, char *to, size_t size, int64_t *stamp) {
  char control[128];
  struct iovec room = {to, size};
  struct msghdr message = {.msg_iov = &room, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  long got = syscall(SYS_recvmsg, fd, &message, MSG_DONTWAIT);
  if (got < 0) return -errno;
  if (got) *stamp = stamp_of(r, &message);
  return got;
}

/* Reads fd, at most limit bytes. If limit is below READ, reads on to the end of the chunk that it cut. Returns the bytes read, or -EAGAIN.
 * state: of the connection afterwards, as in struct record. */
static long read_one(struct receiver *r, struct connection *c, int fd, char *to, size_t limit, int64_t *stamp, int *state) {
  char *data = to - c->carried;
  size_t asked = limit, size = c->carried;
  long got = read_some(r, fd, to, asked, stamp);
  if (got == -EAGAIN) return got;
  while (got > 0) {
    size += (size_t)got;
    size_t rest = (size_t)got == asked && limit < READ && size < CARRY ? missing(data, size) : 0;
    if (!rest) break;
    asked = rest;
    got = read_some(r, fd, data + size, asked, stamp);
  }
  *state = got > 0 || got == -EAGAIN ? 0 : got ? (int)got : 1;
  return (long)(size - c->carried);
}

/* Corrects a time stamp: it must not precede the last one; one in the future means that the wall clock was set while the data waited. */
static int64_t plausible(struct receiver *r, struct connection *c, int64_t stamp, int64_t now) {
  if (stamp > now + STEP_NS || stamp < c->last_ns - STEP_NS) {
    r->unstamped++;
    stamp = now;
  }
  return stamp < c->last_ns ? c->last_ns : stamp;
}

/* Stores the expected events at the start of data. Returns their total length. torn: whether the start of another one follows. */
static size_t recognise(struct receiver *r, struct connection *c, int64_t stamp, const char *data, size_t size, int *torn) {
  const char *text = NULL;
  size_t text_bytes = 0, taken = 0;
  long length = 0;
  while (taken < size && (length = event(c, data + taken, size - taken, &text, &text_bytes)) > 0 && store(r, c, stamp, text, text_bytes))
    taken += (size_t)length;
  *torn = length < 0;
  return taken;
}

/* Updates the number of bytes that the server usually sends at once. size: of the read. taken: bytes of whole events in it. torn: the start
 * of another event follows. one: the read was limited. split: it brought only the rest of an arrival that the previous read began. */
static void learn(struct receiver *r, struct connection *c, size_t size, size_t taken, int torn, int one, int split) {
  if (taken && taken == size && (!c->usual || size < c->usual)) {
    c->usual = size;
    if (!r->usual || size < r->usual) r->usual = size;
  } else if (one && taken && torn) {
    c->usual = taken; /* a shorter event and the start of the next */
  } else if (one && split) {
    c->usual = READ; /* separate arrivals cannot be distinguished */
  }
}

/* Finds out whether the server waits for acknowledgements; call it after each read of a probed connection. With Nagle's algorithm a server
 * sends a segment that is not full only after the previous such segment was acknowledged. If one arrives although this host has sent
 * nothing since before the previous one arrived, the server does not wait (TCP_NODELAY). alone: the read brought exactly one event,
 * smaller than a segment, with a kernel time stamp. sent: segments sent before the read. events: number of events in the read. */
static void probe(struct receiver *r, struct connection *c, int fd, int events, int alone, int64_t stamp, uint32_t sent) {
  uint32_t mss;
  int later = alone && c->read_ns && stamp > c->read_ns + TOGETHER_NS;
  int nodelay = later && c->alone && sent && sent == c->alone_after, was = c->chances >= CHANCES && !c->nodelay_events;
  c->chances += events;
  c->nodelay_events += nodelay;
  r->nodelay_events += nodelay;
  r->nagle_connections += (c->chances >= CHANCES && !c->nodelay_events) - was;
  c->alone = later;
  c->alone_after = c->segments;
  c->segments = segments_sent(fd, &mss);
  c->read_ns = clock_ns(CLOCK_MONOTONIC);
}

static void receive(struct receiver *r, int fd) {
  struct connection *c = find(r, fd);
  if (!c) return;
  char *base = r->arena + r->used;
  size_t before = c->carried, usual = c->usual ? c->usual : r->usual, limit = READ;
  if (before) memcpy(base, c->carry, before);
  if (r->behind && usual && usual < READ && !c->ending && !c->probed) limit = usual > before ? usual - before : 1;
  int64_t stamp = 0;
  int state = 0, together = 0, torn = 0, held = c->count, probing = c->probed && c->pattern;
  int64_t unstamped = r->unstamped;
  uint32_t mss = 0, sent = probing ? segments_sent(fd, &mss) : 0;
  long got = read_one(r, c, fd, base + before, limit, &stamp, &state);
  if (got == -EAGAIN) return;
  size_t size = before + (size_t)got;
  int64_t now = clock_ns(CLOCK_MONOTONIC), gap = 0;
  c->carried = 0;
  if (got > 0) {
    stamp = plausible(r, c, stamp, now);
    gap = stamp - c->last_ns;
    together = gap < TOGETHER_NS;
    if (together && limit < READ) stamp = c->last_ns; /* one arrival, converted with two clock offsets */
    c->last_ns = stamp;
    r->reads++;
    count_wait(r, now - stamp);
  } else {
    stamp = now;
  }
  size_t taken = got > 0 && c->pattern ? recognise(r, c, stamp, base, size, &torn) : 0;
  if (probing) {
    int events = c->count - held, alone = !before && events == 1 && taken == size && size <= SMALL && size < mss;
    probe(r, c, fd, events, alone && r->unstamped == unstamped, stamp, sent);
  }
  learn(r, c, size, taken, torn, limit < READ, together && !before);
  if (taken && gap < HASTE_NS) r->gap_ns = STAY_NS;
  if (torn && carry(c, base + taken, size - taken)) taken = size;
  if (taken < size) {
    add_record(r, fd, 0, stamp, base + taken, size - taken);
    r->used += size;
    c->ended = size >= LAST_CHUNK && !memcmp(base + size - LAST_CHUNK, "0\r\n\r\n", LAST_CHUNK);
    c->ending = c->ending && !c->ended;
  }
  if (state) {
    epoll_ctl(r->epoll, EPOLL_CTL_DEL, fd, NULL); /* a closed connection stays ready for ever */
    add_record(r, fd, state, stamp, NULL, 0);
  } else if (c->count >= c->capacity || c->text_bytes >= READ) {
    add_record(r, fd, 0, stamp, NULL, 0);
  }
}

/* Waits until data arrive, for at most ns. */
static int await(struct receiver *r, struct epoll_event *ready, int64_t ns) {
  int64_t timeout[] = {ns / 1000000000, ns % 1000000000};
  long count = r->coarse ? -1 : syscall(SYS_epoll_pwait2, r->epoll, ready, READY, timeout, NULL, 0);
  r->coarse = r->coarse || (count < 0 && (errno == ENOSYS || errno == EPERM));
  return r->coarse ? epoll_wait(r->epoll, ready, READY, (int)(ns / 1000000)) : (int)count;
}

/* Whether reads follow each other so closely that it is cheaper to sleep and read several together (a wake-up costs more than a read). The
 * kernel keeps separate time stamps for data that wait this short a time. count: connections that were ready. */
static int crowded(struct receiver *r, int count, int64_t now) {
  int64_t since = now - r->turned_ns < STAY_NS ? now - r->turned_ns : STAY_NS;
  r->turned_ns = now;
  r->gap_ns += (since / count - r->gap_ns) / 8;
  return r->gap_ns < CROWD_NS && !r->behind && count < READY;
}

/* Reads the data that have arrived. Continues for a few milliseconds while there are no records to report and the event loop is not needed.
 * Returns the number of records, which are valid until the next call. */
int eb_drain(struct receiver *r) {
  struct epoll_event ready[READY];
  int64_t now = clock_ns(CLOCK_MONOTONIC), until = now + STAY_NS;
  if (until > r->free_until_ns - EARLY_NS) until = r->free_until_ns - EARLY_NS;
  r->count = 0;
  r->used = 0;
  if (now - r->left_ns > BEHIND_NS) r->behind = 1; /* until the next read updates it */
  for (int64_t wait_ns = 0; wait_ns >= 0; wait_ns = until - now) {
    int count = await(r, ready, wait_ns);
    read_clocks(r);
    for (int i = 0; i < count; i++) receive(r, ready[i].data.fd);
    now = clock_ns(CLOCK_MONOTONIC);
    int crowd = count > 0 && crowded(r, count, now);
    if (count <= 0 || r->count || r->loop_waiters) break;
    if (crowd && now + 2 * CROWD_NS < until) {
      nanosleep(&(struct timespec){.tv_nsec = CROWD_NS}, NULL);
      int64_t woke = clock_ns(CLOCK_MONOTONIC);
      if (woke - now > BEHIND_NS) r->behind = 1;
      now = woke;
    }
  }
  r->left_ns = now;
  return r->count;
}
