/* Reads of many connections, stamped by the kernel; events that look like those before them never reach Python.
 *
 * Does not know: HTTP beyond where a head and a chunk end, JSON, requests, time-outs. A connection whose next event is expected (a pattern: the
 * bytes before and after its text, each event an HTTP chunk of its own) has stamps and texts collected here until somebody takes
 * them; whatever is different is handed up as it came. A stamp is the kernel's receive time (SO_TIMESTAMPNS), so it is right however
 * late the read is: an event that waits because a thousand others are read first is not measured late. What one read brings together
 * shares a stamp, so while reads have to wait each takes no more than the server usually sends at once: the kernel keeps what arrived
 * separately apart, each with its own time, until it is acknowledged. Acknowledging every read costs a tenth of the processor time and keeps
 * less apart, so acknowledgements are delayed where the server is known not to wait for them; `probe` finds out.
 *
 * Built by hatch_build.py, used through ctypes (compiled.py); plain C, so that neither Python's headers nor its version matter. Linux.
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
  VERSION = 8,                    /* of what compiled.py declares */
  READY = 256,                    /* connections that are read in turn, at most */
  READ = 64 << 10,                /* bytes of one read, at most */
  CARRY = 8 << 10,                /* a started event longer than this is not waited for */
  ARENA = READY * (READ + CARRY), /* touched only as far as reads were not recognised */
  WAITS = 256,                    /* steps of the histogram of waits, eight to an octave of microseconds */
  LAST_CHUNK = 5,                 /* bytes */
  HEAD_STEP = 64,                 /* bytes: little enough to take no token along that is not the first */
  CLOCK_TRIES = 5,
  CLOCK_APART_NS = 2000, /* two clocks read further apart than this were interrupted */
  STEP_NS = 1000000,     /* a wall clock that moves this much between two drains was set */
  USABLE_TRIES = 100,    /* a millisecond each */
  BEHIND_NS = 200000,    /* where reads wait longer than this, more than one event of a connection may */
  TOGETHER_NS = 2000,    /* what arrives within this time came together */
  STAY_NS = 3000000,     /* a drain with nothing to report goes on for so long */
  EARLY_NS = 100000,     /* and ends so long before the event loop is needed, since sleeps last longer than was asked */
  CROWD_NS = 50000,      /* where reads follow each other closer than this, those to come are made to wait: twice as long, as sleeps are */
  HASTE_NS = 1000000,    /* but not where those of one connection are closer than this */
  SMALL = 500,           /* bytes: less than a segment can hold, nearly everywhere */
  SND_MSS_AT = 16,       /* of tcpi_snd_mss and tcpi_segs_out in the kernel's struct tcp_info; the C library's may end before */
  SEGS_OUT_AT = 136,
  CHANCES = 6,           /* events, after which a server that was not seen to send on is taken for one that waits */
};

enum acks { USUAL, PROBE, DELAYED };

struct record {
  int32_t fd;
  int32_t state; /* 0 open, 1 closed by the peer, -errno */
  int64_t stamp_ns;
  int64_t at, size; /* bytes that were not recognised; none and open: there is much to take */
  int64_t held;     /* events to take first */
};

struct connection {
  int most, count, room; /* events to hold, held, allocated */
  int64_t *stamps;
  int32_t *lengths;
  char *texts;
  size_t text_bytes, text_room;
  char *pattern; /* head, then closing */
  size_t head, closing;
  char *carry; /* the start of an event whose rest has not come */
  size_t carried;
  size_t usual;    /* bytes sent at once, going by the smallest read of whole events; READ: no use in knowing; 0: not known */
  int64_t last_ns; /* arrival of what was read last */
  int ended;       /* what was handed up last ended with a response's last chunk */
  int ending;      /* events like those before are over, the response is not */
  int probed, chances, unawaited; /* see `probe`: whether at all; events, and those that were not waited for */
  int64_t read_ns;                /* just after the last read; 0: nothing is known */
  uint32_t segments;              /* sent until then */
  int alone;                      /* that read was a small event alone, which had come after the read before, */
  uint32_t alone_after;           /* when so many segments had been sent */
};

struct receiver {
  /* shared with receiver.py */
  int64_t free_until_ns; /* its to set: before this instant the event loop has nothing else to do, as far as is known */
  int64_t hurried;       /* its to set: how many others wait for the event loop */
  int64_t acks;          /* its to set, before the first connection: enum acks */
  int64_t unawaited;     /* seen while probing: events that were sent though the one before was not acknowledged */
  int64_t awaiting;      /* connections where no such event was seen, and should have been */
  int64_t pending;       /* events held by all connections */
  int64_t heard_ns;      /* arrival of the last event that was recognised */
  int64_t reads;
  int64_t unstamped;     /* of them without a receive time of the kernel's: they have the time of the read */
  int64_t waits[WAITS];  /* how many reads had waited so long; see `note_wait` */
  int64_t *stamps;       /* what was taken last */
  int32_t *lengths;
  char *texts;
  int64_t text_bytes;
  struct record records[3 * READY];
  /* private */
  int epoll, count, slots;
  struct connection **connections; /* by file descriptor */
  int64_t offset_ns;               /* wall clock - monotonic clock */
  int stepped;                     /* the wall clock was set since the drain before */
  int behind;                      /* reads have to wait for their turn */
  size_t usual;                    /* the least of all connections */
  int added;                       /* connections so far */
  int coarse;                      /* this kernel waits by the millisecond */
  int64_t left_ns;                 /* the end of the drain before */
  int64_t turned_ns, gap_ns;       /* when connections were last read; time from read to read lately */
  size_t used;
  char arena[ARENA];
};

static int64_t clock_ns(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Compares the clocks anew, since the wall clock is slewed and set. */
static void read_clocks(struct receiver *r) {
  r->stepped = 1; /* if every try is interrupted, nothing is known */
  for (int i = 0; i < CLOCK_TRIES; i++) {
    int64_t before = clock_ns(CLOCK_MONOTONIC), wall = clock_ns(CLOCK_REALTIME), after = clock_ns(CLOCK_MONOTONIC);
    if (r->offset_ns && after - before > CLOCK_APART_NS) continue;
    int64_t offset = wall - before - (after - before) / 2, moved = offset - r->offset_ns;
    r->stepped = r->offset_ns && (moved > STEP_NS || moved < -STEP_NS);
    r->offset_ns = offset;
    return;
  }
}

/* The kernel's receive time on the monotonic clock; now, where there is none or the wall clock was set in between. */
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

/* Whether this system stamps what a connection receives: seen on one to ourselves, which is kept, because a kernel begins to stamp some
 * moments after the first socket has asked for it, and ends when none is left. */
int eb_usable(void) {
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof here;
  struct sockaddr *address = (struct sockaddr *)&here;
  int door = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), ours = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int theirs = -1, seen = 0;
  if (!stamped(ours) && !bind(door, address, size) && !listen(door, 1) && !getsockname(door, address, &size) &&
      !connect(ours, address, size))
    theirs = accept(door, NULL, NULL);
  for (int i = 0; theirs >= 0 && !seen && i < USABLE_TRIES; i++) {
    char byte = 0, control[128];
    struct iovec room = {&byte, 1};
    struct msghdr message = {.msg_iov = &room, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (send(theirs, &byte, 1, MSG_NOSIGNAL) != 1) break;
    seen = recvmsg(ours, &message, MSG_DONTWAIT) == 1 && message.msg_controllen > 0; /* whoever was accepted: never wait for it */
    if (!seen) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  }
  if (door >= 0) close(door);
  if (theirs >= 0) close(theirs);
  if (ours >= 0 && !seen) close(ours);
  return seen;
}

/* From now on what fd receives is acknowledged with the next data that we send, at every second read, or after the kernel's delay; not at every
 * read. Holds until that delay has passed once. */
static void delay_acks(int fd) {
  int quick = 0;
  setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &quick, sizeof quick);
}

/* Segments that fd has sent, acknowledgements included; 0: not known. mss: bytes of one, at most. */
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

/* From now on reads of fd are stamped by the kernel and drained. most: events to hold before a record asks to take them. 0 or -errno. */
int eb_add(struct receiver *r, int fd, int most) {
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
  c->probed = r->acks == PROBE && r->added++ % 2; /* the others show what the server is like without */
  c->most = most;
  r->connections[fd] = c;
  return 0;
}

/* Before fd is closed. What it still holds is lost. */
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

/* Events held by fd, oldest first, in stamps, lengths and texts of the receiver until the next call. Returns their number. */
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

static int hold(struct receiver *r, struct connection *c, int64_t stamp, const char *text, size_t size) {
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
  r->heard_ns = stamp;
  return 1;
}

static int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 'a' ^ 'A';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Bytes of the HTTP chunk that data begins with, the line with its size (start bytes) and the CRLF after it included; 0: none, or the last
 * one, which is empty; -1: it may be one, and more has to come. */
static long chunk(const char *data, size_t size, size_t *start) {
  size_t digits = 0, bytes = 0;
  for (int d; digits < size && digits < 7 && (d = digit(data[digits])) >= 0; digits++) bytes = 16 * bytes + d;
  if (digits == size) return size && data[0] == '0' ? 0 : -1;
  if (!digits || data[0] == '0' || data[digits] != '\r') return 0;
  if (digits + 1 == size) return -1;
  *start = digits + 2;
  return data[digits + 1] == '\n' ? (long)(*start + bytes + 2) : 0;
}

/* Bytes of the event that data begins with; 0: none that is expected; -1: it may be one, and more has to come. */
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

/* Bytes that data lack to end with a whole chunk, of which they have the start; of a response's head that is cut, a guess. 0: none, or nobody
 * can tell. */
static size_t lacking(const char *data, size_t size) {
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

/* Keeps the start of an event until the rest of it has come; whether there is room. */
static int carry(struct connection *c, const char *start, size_t size) {
  if (size > CARRY || (!c->carry && !(c->carry = malloc(CARRY)))) return 0;
  memcpy(c->carry, start, size);
  c->carried = size;
  return 1;
}

/* What the next events of fd look like: a chunk whose data are head, a text, and closing without its CRLF. head NULL: not known. rest:
 * bytes that may be the start of one, or none. Whether they are, and so were taken. */
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

static void note(struct receiver *r, int fd, int state, int64_t stamp, const char *at, size_t size) {
  r->records[r->count++] = (struct record){fd, state, stamp, (int64_t)(intptr_t)at, (int64_t)size, find(r, fd)->count};
}

/* Counts a read by the time that it has waited: step n is n us below 8, and from (8 + n % 8) << (n / 8 - 1) us on above. */
static void note_wait(struct receiver *r, int64_t waited) {
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

/* recvmsg, without waiting; what it returns, or -errno. stamp: of what was read. Not by way of the C library, where a thread may be
 * cancelled in it, which costs as much as the comparison of what was read. */
static long read_some(struct receiver *r, int fd, char *to, size_t size, int64_t *stamp) {
  char control[128];
  struct iovec room = {to, size};
  struct msghdr message = {.msg_iov = &room, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  long got = syscall(SYS_recvmsg, fd, &message, MSG_DONTWAIT);
  if (got < 0) return -errno;
  if (got) *stamp = stamp_of(r, &message);
  return got;
}

/* Reads fd once; while reads have to wait, no more than is usually sent at once, and then to the end of the chunk that this cuts. Returns the
 * bytes read, or -EAGAIN. state: what a record says of the connection afterwards. */
static long read_one(struct receiver *r, struct connection *c, int fd, char *to, size_t limit, int64_t *stamp, int *state) {
  char *data = to - c->carried;
  size_t asked = limit, size = c->carried;
  long got = read_some(r, fd, to, asked, stamp);
  if (got == -EAGAIN) return got;
  while (got > 0) {
    size += (size_t)got;
    size_t rest = (size_t)got == asked && limit < READ && size < CARRY ? lacking(data, size) : 0;
    if (!rest) break;
    asked = rest;
    got = read_some(r, fd, data + size, asked, stamp);
  }
  *state = got > 0 || got == -EAGAIN ? 0 : got ? (int)got : 1;
  return (long)(size - c->carried);
}

/* The read's time, corrected: what came before cannot be later, and the future is a wall clock that was set while the bytes waited. */
static int64_t plausible(struct receiver *r, struct connection *c, int64_t stamp, int64_t now) {
  if (stamp > now + STEP_NS || stamp < c->last_ns - STEP_NS) {
    r->unstamped++;
    stamp = now;
  }
  return stamp < c->last_ns ? c->last_ns : stamp;
}

/* Holds the expected events that data begin with. Returns the bytes that they take; torn: whether the start of another follows. */
static size_t recognise(struct receiver *r, struct connection *c, int64_t stamp, const char *data, size_t size, int *torn) {
  const char *text = NULL;
  size_t text_bytes = 0, taken = 0;
  long length = 0;
  while (taken < size && (length = event(c, data + taken, size - taken, &text, &text_bytes)) > 0 && hold(r, c, stamp, text, text_bytes))
    taken += (size_t)length;
  *torn = length < 0;
  return taken;
}

/* How much the server sends at once, by a read of size bytes, of which taken were whole events and torn says whether there is the start of
 * another. one: the read was limited to what is usual; split: and brought only the rest of what the one before had begun. */
static void learn(struct receiver *r, struct connection *c, size_t size, size_t taken, int torn, int one, int split) {
  if (taken && taken == size && (!c->usual || size < c->usual)) {
    c->usual = size;
    if (!r->usual || size < r->usual) r->usual = size;
  } else if (one && taken && torn) {
    c->usual = taken; /* a shorter one, and the start of the next */
  } else if (one && split) {
    c->usual = READ; /* these cannot be told apart */
  }
}

/* After a read of a connection whose acknowledgements are delayed to see what the server makes of it. With Nagle's algorithm it sends no segment
 * that is not full before the one before, not full either, is acknowledged. Where one comes although nothing was sent since before that one
 * came, it did not wait. alone: the read brought all that had come, one event that is no full segment, with the kernel's stamp. sent:
 * segments, before the read. events: that it brought. */
static void probe(struct receiver *r, struct connection *c, int fd, int events, int alone, int64_t stamp, uint32_t sent) {
  uint32_t mss;
  int later = alone && c->read_ns && stamp > c->read_ns + TOGETHER_NS;
  int unawaited = later && c->alone && sent && sent == c->alone_after, was = c->chances >= CHANCES && !c->unawaited;
  c->chances += events;
  c->unawaited += unawaited;
  r->unawaited += unawaited;
  r->awaiting += (c->chances >= CHANCES && !c->unawaited) - was;
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
    if (together && limit < READ) stamp = c->last_ns; /* one arrival, but the clocks were compared twice */
    c->last_ns = stamp;
    r->reads++;
    note_wait(r, now - stamp);
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
    note(r, fd, 0, stamp, base + taken, size - taken);
    r->used += size;
    c->ended = size >= LAST_CHUNK && !memcmp(base + size - LAST_CHUNK, "0\r\n\r\n", LAST_CHUNK);
    c->ending = c->ending && !c->ended;
  }
  if (state) {
    epoll_ctl(r->epoll, EPOLL_CTL_DEL, fd, NULL); /* it would be ready for ever */
    note(r, fd, state, stamp, NULL, 0);
  } else if (c->count >= c->most || c->text_bytes >= READ) {
    note(r, fd, 0, stamp, NULL, 0);
  }
}

/* Waits until something has arrived, for so long at most. */
static int await(struct receiver *r, struct epoll_event *ready, int64_t ns) {
  int64_t timeout[] = {ns / 1000000000, ns % 1000000000};
  long count = r->coarse ? -1 : syscall(SYS_epoll_pwait2, r->epoll, ready, READY, timeout, NULL, 0);
  r->coarse = r->coarse || (count < 0 && (errno == ENOSYS || errno == EPERM));
  return r->coarse ? epoll_wait(r->epoll, ready, READY, (int)(ns / 1000000)) : (int)count;
}

/* Whether so much arrives, of so many connections, that it is cheaper to read some of it together: to sleep and be woken up costs more than a
 * read. What waits for so short a time keeps its own stamp. count: connections that were ready. */
static int crowded(struct receiver *r, int count, int64_t now) {
  int64_t since = now - r->turned_ns < STAY_NS ? now - r->turned_ns : STAY_NS;
  r->turned_ns = now;
  r->gap_ns += (since / count - r->gap_ns) / 8;
  return r->gap_ns < CROWD_NS && !r->behind && count < READY;
}

/* Reads what has arrived, and, for as long as there is nothing to report and nobody else needs the event loop, what arrives then: at most
 * some milliseconds. Returns the number of records, which hold until the next call. */
int eb_drain(struct receiver *r) {
  struct epoll_event ready[READY];
  int64_t now = clock_ns(CLOCK_MONOTONIC), until = now + STAY_NS;
  if (until > r->free_until_ns - EARLY_NS) until = r->free_until_ns - EARLY_NS;
  r->count = 0;
  r->used = 0;
  if (now - r->left_ns > BEHIND_NS) r->behind = 1; /* until a read tells otherwise */
  for (int64_t wait_ns = 0; wait_ns >= 0; wait_ns = until - now) {
    int count = await(r, ready, wait_ns);
    read_clocks(r);
    for (int i = 0; i < count; i++) receive(r, ready[i].data.fd);
    now = clock_ns(CLOCK_MONOTONIC);
    int crowd = count > 0 && crowded(r, count, now);
    if (count <= 0 || r->count || r->hurried) break;
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
