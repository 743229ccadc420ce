/* The MCP server behind what is measured: so fast that it is never the bottleneck.
 *
 *   echo http             serves HTTP/1.1 with keep-alive on a free port of 127.0.0.1 and prints it
 *   echo http stateless   the same as a server of 2026-07-28
 *   echo stdio            serves newline-delimited messages on stdin and stdout until stdin ends
 *
 * Otherwise a session-era server (2025-11-25) without sessions. tools/call answers with the text it was
 * given, filled up so that an answer has about 280 bytes. Linux only.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { IN_SIZE = 1 << 16, OUT_SIZE = 1 << 18, OUT_ROOM = IN_SIZE + 1024, MAX_EVENTS = 256 };

#define FILLER                                                                                  \
    " ...................................................................................."     \
    "............................................................"

typedef struct { const char *at; size_t len; } span;
typedef struct { span id, method, text; } request;
typedef struct { int fd; size_t len; char in[IN_SIZE]; } connection;

static int stateless;
static char out[OUT_SIZE];
static size_t out_len;

static void die(const char *what) { perror(what); exit(1); }

static int is(span s, const char *text) {
    return s.len == strlen(text) && memcmp(s.at, text, s.len) == 0;
}

static const char *blank(const char *p, const char *end) {
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n')) p++;
    return p;
}

/* The end of the string whose opening quote is at p, one past the closing quote. */
static const char *string_end(const char *p, const char *end) {
    for (p++; p < end && *p != '"'; p++)
        if (*p == '\\') p++;
    return p < end ? p + 1 : end;
}

static span value_at(const char *p, const char *end) {
    const char *q = p;
    if (p < end && *p == '"') q = string_end(p, end);
    else while (q < end && !strchr(",}] \r\n\t", *q)) q++;
    return (span){p, (size_t)(q - p)};
}

/* The members of a JSON object that matter here: id and method at the top, text anywhere. */
static request read_request(const char *p, const char *end) {
    request found = {{0}};
    int depth = 0;
    while (p < end) {
        if (*p == '{' || *p == '[') depth++;
        if (*p == '}' || *p == ']') depth--;
        if (*p != '"') { p++; continue; }
        span name = {p, (size_t)(string_end(p, end) - p)};
        p = blank(name.at + name.len, end);
        if (p >= end || *p != ':') continue;
        p = blank(p + 1, end);
        if (depth == 1 && is(name, "\"id\"")) found.id = value_at(p, end);
        if (depth == 1 && is(name, "\"method\"")) found.method = value_at(p, end);
        if (is(name, "\"text\"") && p < end && *p == '"') found.text = value_at(p, end);
    }
    return found;
}

static void put(const char *bytes, size_t len) {
    memcpy(out + out_len, bytes, len);
    out_len += len;
}

static void put_text(const char *text) { put(text, strlen(text)); }

static void put_result(const request *r) {
    if (is(r->method, "\"tools/call\"")) {
        put_text("\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"");
        if (r->text.len >= 2) put(r->text.at + 1, r->text.len - 2);
        put_text(FILLER "\"}],\"isError\":false");
        put_text(stateless ? ",\"resultType\":\"complete\"}" : "}");
    } else if (stateless && is(r->method, "\"server/discover\"")) {
        put_text("\"result\":{\"resultType\":\"complete\",\"supportedVersions\":[\"2026-07-28\"],"
                 "\"capabilities\":{\"tools\":{}},\"ttlMs\":0,\"cacheScope\":\"private\"}");
    } else if (!stateless && is(r->method, "\"initialize\"")) {
        put_text("\"result\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{}},"
                 "\"serverInfo\":{\"name\":\"bench-echo\",\"version\":\"1\"}}");
    } else if (is(r->method, "\"tools/list\"")) {
        put_text("\"result\":{\"tools\":[{\"name\":\"echo\",\"inputSchema\":{\"type\":\"object\","
                 "\"properties\":{\"text\":{\"type\":\"string\"}}}}]");
        put_text(stateless ? ",\"resultType\":\"complete\",\"ttlMs\":0,\"cacheScope\":\"private\"}"
                           : "}");
    } else if (is(r->method, "\"ping\"")) {
        put_text("\"result\":{}");
    } else {
        put_text("\"error\":{\"code\":-32601,\"message\":\"Method not found\"}");
    }
}

static void put_answer(const request *r) {
    put_text("{\"jsonrpc\":\"2.0\",\"id\":");
    put(r->id.at, r->id.len);
    put_text(",");
    put_result(r);
    put_text("}");
}

/* Write out what is there; on a full socket wait, since one slow reader must not lose bytes. */
static int flush(int fd) {
    for (size_t sent = 0; sent < out_len;) {
        ssize_t n = write(fd, out + sent, out_len - sent);
        if (n > 0) { sent += (size_t)n; continue; }
        if (n < 0 && errno != EAGAIN && errno != EINTR) { out_len = 0; return -1; }
        poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
    }
    out_len = 0;
    return 0;
}

static size_t content_length(const char *head, const char *end) {
    for (const char *line = memchr(head, '\n', (size_t)(end - head)); line && ++line < end;
         line = memchr(line, '\n', (size_t)(end - line)))
        if (strncasecmp(line, "content-length:", 15) == 0) return strtoul(line + 15, NULL, 10);
    return 0;
}

static void put_http(const char *head, const char *body, size_t len) {
    static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
    /* Not a 404: that, with a JSON-RPC body, is how a server of the stateless era would refuse. */
    static const char bad[] =
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: ";
    if (strncmp(head, "POST ", 5) != 0) {
        put_text("HTTP/1.1 405 Method Not Allowed\r\nAllow: POST\r\nContent-Length: 0\r\n\r\n");
        return;
    }
    request r = read_request(body, body + len);
    if (!r.id.len) {
        put_text("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
        return;
    }
    put_text(!stateless && is(r.method, "\"server/discover\"") ? bad : ok);
    size_t gap = out_len; /* the length is known once the answer is written: five places wait */
    put_text("     \r\n\r\n");
    size_t start = out_len;
    put_answer(&r);
    char digits[24];
    snprintf(digits, sizeof digits, "%5zu", out_len - start);
    memcpy(out + gap, digits, 5);
}

/* Answer every whole request in the buffer; 0 when the connection is to be closed. */
static int serve_connection(connection *c) {
    ssize_t n = read(c->fd, c->in + c->len, IN_SIZE - c->len);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 1;
    if (n <= 0) return 0;
    c->len += (size_t)n;
    const char *p = c->in, *end = c->in + c->len, *body;
    while ((body = memmem(p, (size_t)(end - p), "\r\n\r\n", 4))) {
        size_t len = content_length(p, body);
        body += 4;
        if ((size_t)(end - body) < len) break;
        if (out_len + OUT_ROOM > OUT_SIZE && flush(c->fd) < 0) return 0;
        put_http(p, body, len);
        p = body + len;
    }
    c->len = (size_t)(end - p);
    memmove(c->in, p, c->len);
    return flush(c->fd) == 0 && c->len < IN_SIZE;
}

static void accept_all(int listener, int epoll) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        connection *c = malloc(sizeof *c);
        if (!c) die("malloc");
        c->fd = fd;
        c->len = 0;
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){EPOLLIN, {.ptr = c}});
    }
}

static int serve_http(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), epoll = epoll_create1(0);
    if (listener < 0 || epoll < 0) die("socket");
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1024)) die("bind");
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &(struct epoll_event){EPOLLIN, {.ptr = NULL}});
    for (struct epoll_event events[MAX_EVENTS];;) {
        int n = epoll_wait(epoll, events, MAX_EVENTS, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            connection *c = events[i].data.ptr;
            if (!c) { accept_all(listener, epoll); continue; }
            if (serve_connection(c)) continue;
            close(c->fd);
            free(c);
        }
    }
}

static int serve_stdio(void) {
    static char in[IN_SIZE];
    size_t len = 0;
    for (ssize_t n; (n = read(0, in + len, IN_SIZE - len)) > 0;) {
        const char *p = in, *end = in + (len += (size_t)n), *newline;
        while ((newline = memchr(p, '\n', (size_t)(end - p)))) {
            request r = read_request(p, newline);
            p = newline + 1;
            if (!r.id.len || !r.method.len) continue;
            if (out_len + OUT_ROOM > OUT_SIZE && flush(1) < 0) return 1;
            put_answer(&r);
            put_text("\n");
        }
        len = (size_t)(end - p);
        memmove(in, p, len);
        if (flush(1) < 0 || len == IN_SIZE) return 1;
    }
    return 0;
}

int main(int argc, char **argv) {
    stateless = argc == 3 && strcmp(argv[2], "stateless") == 0;
    if (argc == 2 + stateless && strcmp(argv[1], "http") == 0) return serve_http();
    if (argc == 2 && strcmp(argv[1], "stdio") == 0) return serve_stdio();
    fprintf(stderr, "usage: echo http [stateless] | echo stdio\n");
    return 2;
}
