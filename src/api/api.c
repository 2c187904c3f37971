// The API as the daemon sees it: joins the ways in, the clients and what is said.
#include "api/api.h"

#include "api/client.h"
#include "api/messages.h"
#include "api/server.h"
#include "util/text.h"

struct api {
    struct messages *messages;
    struct clients *clients;
    struct server *server;
};

int api_new(struct api **api, sd_event *loop, struct log *log, struct reconcile *reconcile,
            const struct api_callbacks *callbacks, void *user)
{
    CLEANUP(cleanup_api) struct api *new = memory_new(1, sizeof *new);
    int status;
    if ((status = messages_new(&new->messages, loop, log, reconcile, callbacks, user)) < 0 ||
        (status = clients_new(&new->clients, loop, log, new->messages)) < 0 ||
        (status = server_new(&new->server, loop, log, new->clients)) < 0)
        return status;
    *api = steal_pointer(&new);
    return 0;
}

void api_configure(struct api *api, const struct config *config)
{
    messages_configure(api->messages, config);
    clients_configure(api->clients, &config->api);
    server_configure(api->server, &config->api);
}

void api_output(struct api *api, const struct output *output)
{
    messages_output(api->messages, output);
}

void api_prepared(struct api *api, uint64_t serial, const char *why_not)
{
    messages_prepared(api->messages, serial, why_not);
}

void api_decided(struct api *api, uint64_t revision)
{
    messages_decided(api->messages, revision);
}

void api_scanned(const struct api *api)
{
    messages_scanned(api->messages);
}

void api_settled(struct api *api, uint64_t revision)
{
    messages_settled(api->messages, revision);
}

void api_free(struct api *api)
{
    if (!api)
        return;
    server_free(api->server);
    clients_free(api->clients);
    messages_free(api->messages);
    free(api);
}
