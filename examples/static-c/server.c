/* Answers every HTTP request with one page, one connection after the other, on the port that PORT names. */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static const char page[] =
    "<!doctype html>\n"
    "<html lang=\"en\">\n"
    "<meta charset=\"utf-8\">\n"
    "<title>It works</title>\n"
    "<h1>It works: a static C program, from an image made by pybuild</h1>\n"
    "</html>\n";

static void leave(int signal_number)
{
    (void)signal_number;
    _exit(0);
}

static int listen_on(int port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_ANY),
    };
    int yes = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0
        || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 16) < 0) {
        perror("server");
        exit(1);
    }
    return listener;
}

/* Reads up to the empty line that ends the request's head; a body, if any, is not looked at. */
static void read_request(int connection)
{
    char request[4096];
    size_t filled = 0;

    while (filled < sizeof request - 1) {
        ssize_t count = read(connection, request + filled, sizeof request - 1 - filled);
        if (count <= 0)
            return;
        filled += count;
        request[filled] = '\0';
        if (strstr(request, "\r\n\r\n"))
            return;
    }
}

int main(void)
{
    const char *text = getenv("PORT");
    int port = text ? atoi(text) : 8000;
    int listener = listen_on(port);
    struct timeval patience = {.tv_sec = 5};

    /* Process 1 of a container has no default actions for signals. */
    signal(SIGTERM, leave);
    signal(SIGINT, leave);
    signal(SIGPIPE, SIG_IGN);

    printf("listening on port %d\n", port);
    fflush(stdout);

    for (;;) {
        int connection = accept(listener, NULL, NULL);
        if (connection < 0)
            continue;
        setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        read_request(connection);
        dprintf(connection,
                "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %zu\r\n"
                "Connection: close\r\n\r\n%s",
                sizeof page - 1, page);
        shutdown(connection, SHUT_WR);
        read_request(connection);
        close(connection);
    }
}
