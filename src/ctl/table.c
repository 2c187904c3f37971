// Tables and trees, by libsmartcols.
#include "ctl/table.h"

#include <langinfo.h>
#include <libsmartcols.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl/say.h"
#include "ctl/wrap.h"
#include "util/json.h"
#include "util/text.h"

// More than any host has; a list that is longer is cut, so that sorting it takes no time.
#define ROWS_MAX 4096
#define HUB_CLASS 9
// The least that a column of texts shrinks to.
#define WRAP_LEAST 12UL

DEFINE_CLEANUP(struct libscols_table *, cleanup_table, scols_unref_table)

struct column {
    const char *name;
    int flags; // SCOLS_FL_WRAP: it and others of these share what is left of the terminal
};

struct row {
    struct json_object *device; // borrowed
    size_t root;                // the bus or kind that it is of
    char *place;                // "1-2.3"
    struct libscols_line *line; // of the tree; borrowed
};

struct rows {
    struct row *items;
    size_t count;
};

static void rows_clear(struct rows *rows)
{
    for (size_t i = 0; i < rows->count; i++)
        free(rows->items[i].place);
    free(rows->items);
}

static bool has_colours(void)
{
    const char *no = getenv("NO_COLOR"), *terminal = getenv("TERM");
    return isatty(STDOUT_FILENO) && !(no && *no) && !string_equal(terminal, "dumb");
}

// A table with COLUMNS, or NULL without memory.
static struct libscols_table *table_new(const struct column *columns, size_t count)
{
    CLEANUP(cleanup_table) struct libscols_table *table = scols_new_table();
    if (!table)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        struct libscols_column *column = scols_table_new_column(table, columns[i].name, 0, columns[i].flags);
        if (!column)
            return NULL;
        if (columns[i].flags & SCOLS_FL_WRAP)
            (void)scols_column_set_wrapfunc(column, scols_wrapnl_chunksize, scols_wrapnl_nextchunk, NULL);
    }
    // All that is shown was made safe, and would be made so twice.
    (void)scols_table_enable_noencoding(table, 1);
    (void)scols_table_enable_colors(table, has_colours());
    (void)scols_table_enable_ascii(table, strcmp(nl_langinfo(CODESET), "UTF-8") != 0);
    return steal_pointer(&table);
}

// Puts an owned string into a cell; what is empty is shown as empty.
static void set_cell(struct libscols_line *line, size_t column, char *owned)
{
    if (scols_line_refer_data(line, column, owned) < 0)
        free(owned);
}

static void colour_cell(struct libscols_line *line, size_t column, const char *colour)
{
    struct libscols_cell *cell = scols_line_get_cell(line, column);
    if (cell && colour)
        (void)scols_cell_set_color(cell, colour);
}

// ---- what fits

static const char *cell_text(struct libscols_table *table, size_t row, size_t column)
{
    struct libscols_cell *cell = scols_line_get_cell(scols_table_get_line(table, row), column);
    const char *text = cell ? scols_cell_get_data(cell) : NULL;
    return text ? text : "";
}

static size_t column_width(struct libscols_table *table, size_t column)
{
    struct libscols_cell *title = scols_column_get_header(scols_table_get_column(table, column));
    size_t width = wrap_width(scols_cell_get_data(title));
    for (size_t row = 0; row < scols_table_get_nlines(table); row++) {
        size_t needed = wrap_width(cell_text(table, row, column));
        width = needed > width ? needed : width;
    }
    return width;
}

static void wrap_column(struct libscols_table *table, size_t column, size_t width)
{
    for (size_t row = 0; row < scols_table_get_nlines(table); row++)
        set_cell(scols_table_get_line(table, row), column, wrap_words(cell_text(table, row, column), width));
}

// Makes the columns that may have several lines, one or two, share what the others leave of the terminal.
static void fit(struct libscols_table *table)
{
    size_t wrapped[2] = {0}, needed[2] = {0}, count = 0;
    size_t left = scols_table_get_termwidth(table) + 1;
    for (size_t column = 0; column < scols_table_get_ncols(table); column++) {
        size_t width = column_width(table, column);
        if (scols_column_is_wrap(scols_table_get_column(table, column)) && count < 2) {
            wrapped[count] = column;
            needed[count++] = width;
            left = left > 1 ? left - 1 : 0; // the blank between
        } else {
            left = left > width + 1 ? left - width - 1 : 0;
        }
    }
    if (count == 0 || needed[0] + needed[1] <= left)
        return;
    size_t least = count == 2 ? WRAP_LEAST : 0;
    left = left > 2 * WRAP_LEAST ? left : 2 * WRAP_LEAST;
    // The second, which says why, gets more than half.
    size_t first = count == 1 ? left : left * 3 / 8;
    if (count == 2 && needed[1] < left - first)
        first = left - needed[1];
    first = first < needed[0] ? first : needed[0];
    first = first < least ? least : first;
    wrap_column(table, wrapped[0], first);
    if (count == 2)
        wrap_column(table, wrapped[1], left - first);
}

static int print_table(struct libscols_table *table)
{
    if (isatty(STDOUT_FILENO))
        fit(table);
    if (scols_print_table(table) < 0)
        return EXIT_FAILURE;
    return say_done();
}

// Colours say what a person would look for: what is in its VM, what is not and should be, what is wrong.
static const char *state_colour(const char *state)
{
    static const char *const colours[][2] = {
        {"attached", "green"}, {"attaching", "yellow"}, {"detaching", "yellow"}, {"waits", "yellow"},
        {"refused", "red"},    {"ejected", "yellow"},   {"up", "green"},         {"starting", "yellow"},
        {"silent", "red"},     {"host", "darkgray"},    {"down", "darkgray"},
    };
    for (size_t i = 0; i < sizeof colours / sizeof *colours; i++)
        if (strcmp(state, colours[i][0]) == 0)
            return colours[i][1];
    return NULL;
}

// Buses come first, by their numbers, then kinds.
enum { ROOT_INPUT = 256, ROOT_PCI, ROOT_OTHER, ROOT_COUNT };

// By bus or kind, then by place, with the numbers in it as numbers: 1-2 before 1-10, a hub before what is
// behind it. PCI addresses are hex digits, of a fixed length.
static int compare_rows(const void *a, const void *b)
{
    const struct row *first = a, *second = b;
    if (first->root != second->root)
        return first->root < second->root ? -1 : 1;
    return first->root == ROOT_PCI ? strcmp(first->place, second->place) : strverscmp(first->place, second->place);
}

static bool is_usb(struct json_object *device)
{
    const char *kind = json_member_string(device, "kind");
    return !kind || strcmp(kind, "usb") == 0;
}

static bool is_hub(struct json_object *device)
{
    uint64_t class;
    return is_usb(device) && json_member_uint64(device, "device_class", &class) && class == HUB_CLASS;
}

static size_t root_of(struct json_object *device)
{
    const char *kind = json_member_string(device, "kind");
    uint64_t bus;
    if (is_usb(device))
        return json_member_uint64(device, "busnum", &bus) && bus < ROOT_INPUT ? (size_t)bus : ROOT_OTHER;
    return string_equal(kind, "evdev") ? ROOT_INPUT : string_equal(kind, "pci") ? ROOT_PCI : ROOT_OTHER;
}

// The devices of a list that are objects, sorted by kind and place; without hubs if those are not wanted.
static void rows_fill(struct rows *rows, struct json_object *devices, bool hubs)
{
    size_t count = json_object_array_length(devices);
    rows->items = memory_new(count < ROWS_MAX ? count : ROWS_MAX, sizeof *rows->items);
    for (size_t i = 0; i < count && rows->count < ROWS_MAX; i++) {
        struct json_object *device = json_object_array_get_idx(devices, i);
        if (!json_object_is_type(device, json_type_object) || (!hubs && is_hub(device)))
            continue;
        rows->items[rows->count++] =
            (struct row){.device = device, .root = root_of(device), .place = say_place(device)};
    }
    qsort(rows->items, rows->count, sizeof *rows->items, compare_rows);
}

// The VM that has it, else the one that is to get it in brackets.
static char *device_vm(struct json_object *device)
{
    char *vm = say_member(device, "vm");
    if (*vm)
        return vm;
    free(vm);
    CLEANUP(cleanup_free) char *target = say_member(device, "target");
    return *target ? string_printf("(%s)", target) : string_copy("");
}

// Cells from COLUMN on: id, name, state, VM.
static void set_device(struct libscols_line *line, size_t column, struct json_object *device)
{
    CLEANUP(cleanup_free) char *state = say_member(device, "state");
    set_cell(line, column, say_ids(device));
    set_cell(line, column + 1, say_name(device));
    colour_cell(line, column + 2, state_colour(state));
    set_cell(line, column + 2, string_copy(state));
    set_cell(line, column + 3, device_vm(device));
}

static int say_cut(struct json_object *list)
{
    size_t count = json_object_array_length(list);
    if (count <= ROWS_MAX)
        return EXIT_SUCCESS;
    return say_error("%zu entries, of which only %d are shown", count, ROWS_MAX);
}

int table_devices(struct json_object *devices)
{
    static const struct column columns[] = {{"DEVICE", 0}, {"ID", 0}, {"NAME", SCOLS_FL_WRAP},
                                            {"STATE", 0},  {"VM", 0}, {"WHY", SCOLS_FL_WRAP}};
    CLEANUP(rows_clear) struct rows rows = {0};
    rows_fill(&rows, devices, false);
    if (rows.count == 0) {
        (void)puts("No devices.");
        return say_done();
    }
    CLEANUP(cleanup_table) struct libscols_table *table = table_new(columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; table && i < rows.count; i++) {
        struct libscols_line *line = scols_table_new_line(table, NULL);
        if (!line)
            return say_error("out of memory");
        set_cell(line, 0, string_copy(rows.items[i].place));
        set_device(line, 1, rows.items[i].device);
        set_cell(line, 5, say_member(rows.items[i].device, "reason"));
    }
    return table && print_table(table) == EXIT_SUCCESS ? say_cut(devices) : EXIT_FAILURE;
}

// ---- the tree

// The line of the hub that a device is behind, or NULL.
static struct libscols_line *hub_line(const struct rows *rows, const struct row *row)
{
    const char *dot = strrchr(row->place, '.');
    if (!dot)
        return NULL;
    struct row key = {.root = row->root, .place = string_copy(row->place)};
    key.place[dot - row->place] = '\0';
    struct row *found = bsearch(&key, rows->items, rows->count, sizeof key, compare_rows);
    free(key.place);
    return found && found != row ? found->line : NULL;
}

// What a device hangs on when it hangs on no hub: a bus, or its kind. ROOTS has the lines made already.
static struct libscols_line *root_line(struct libscols_table *table, struct libscols_line **roots, size_t root)
{
    static const char *const titles[] = {"input", "PCI", "other"};
    if (roots[root])
        return roots[root];
    roots[root] = scols_table_new_line(table, NULL);
    if (roots[root])
        set_cell(roots[root], 0,
                 root < ROOT_INPUT ? string_printf("bus %zu", root) : string_copy(titles[root - ROOT_INPUT]));
    return roots[root];
}

// The host's own port of a bus is a hub without a place behind another: the kernel calls it usb1.
static bool is_root_hub(const struct row *row)
{
    return is_hub(row->device) && strncmp(row->place, "usb", 3) == 0;
}

static void set_tree_line(struct row *row)
{
    set_cell(row->line, 0, string_copy(row->place));
    set_device(row->line, 1, row->device);
    if (is_hub(row->device)) {
        colour_cell(row->line, 3, "darkgray");
        set_cell(row->line, 3, string_copy("hub"));
        set_cell(row->line, 4, string_copy(""));
    }
}

int table_tree(struct json_object *devices)
{
    static const struct column columns[] = {
        {"DEVICE", SCOLS_FL_TREE}, {"ID", 0}, {"NAME", SCOLS_FL_TRUNC}, {"STATE", 0}, {"VM", 0}};
    CLEANUP(rows_clear) struct rows rows = {0};
    struct libscols_line *roots[ROOT_COUNT] = {0};
    rows_fill(&rows, devices, true);
    if (rows.count == 0) {
        (void)puts("No devices.");
        return say_done();
    }
    CLEANUP(cleanup_table) struct libscols_table *table = table_new(columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; table && i < rows.count; i++) {
        struct row *row = &rows.items[i];
        struct libscols_line *parent = hub_line(&rows, row);
        if (!parent)
            parent = root_line(table, roots, row->root);
        if (parent && is_root_hub(row))
            continue;
        row->line = parent ? scols_table_new_line(table, parent) : NULL;
        if (!row->line)
            return say_error("out of memory");
        set_tree_line(row);
    }
    return table && print_table(table) == EXIT_SUCCESS ? say_cut(devices) : EXIT_FAILURE;
}

// ---- VMs

static void set_vm(struct libscols_line *line, struct json_object *vm)
{
    CLEANUP(cleanup_free) char *state = say_member(vm, "state");
    bool configured = !json_member(vm, "configured") || say_flag(vm, "configured");
    const char *why = !configured ? "no longer configured" : say_flag(vm, "suspended") ? "suspended" : "";
    CLEANUP(cleanup_free) char *reason = say_member(vm, "reason");
    set_cell(line, 0, say_member(vm, "name"));
    set_cell(line, 1, say_member(vm, "type"));
    colour_cell(line, 2, state_colour(state));
    set_cell(line, 2, string_copy(state));
    set_cell(line, 3, say_since(vm, "since"));
    set_cell(line, 4, say_member(vm, "attached"));
    set_cell(line, 5, say_member(vm, "waiting"));
    set_cell(line, 6, string_printf("%s%s%s", why, *why && *reason ? ": " : "", reason));
}

int table_vms(struct json_object *vms)
{
    static const struct column columns[] = {{"VM", 0},
                                            {"TYPE", 0},
                                            {"STATE", 0},
                                            {"SINCE", 0},
                                            {"DEVICES", SCOLS_FL_RIGHT},
                                            {"WAITING", SCOLS_FL_RIGHT},
                                            {"WHY", SCOLS_FL_WRAP}};
    size_t count = json_object_array_length(vms);
    if (count == 0) {
        (void)puts("No VMs.");
        return say_done();
    }
    CLEANUP(cleanup_table) struct libscols_table *table = table_new(columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; table && i < count && i < ROWS_MAX; i++) {
        struct libscols_line *line = scols_table_new_line(table, NULL);
        if (!line)
            return say_error("out of memory");
        set_vm(line, json_object_array_get_idx(vms, i));
    }
    return table && print_table(table) == EXIT_SUCCESS ? say_cut(vms) : EXIT_FAILURE;
}
