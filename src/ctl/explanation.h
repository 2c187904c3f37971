// An explanation of policy as text: every group and rule that was tried, and why each matched or not.
#pragma once

#include <json-c/json.h>
#include <stdio.h>

// EXPLANATION as core/explain.h makes it, or as a daemon sent it: what is not as it should be is left out.
void explanation_print(struct json_object *explanation, FILE *file);
