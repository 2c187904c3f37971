// One request: who may ask it, what is done, what is answered.
#pragma once

#include "api/messages_private.h"

void request_serve(struct messages *messages, struct caller *caller, struct json_object *request);
