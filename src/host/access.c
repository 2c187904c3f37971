// Access of a VM's user to one device node: an ACL entry of its own, there only as long as the device is in the VM.
#include "host/access.h"

#include <acl/libacl.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/acl.h>
#include <sys/stat.h>

#include "host/access_record.h"
#include "util/text.h"

static void cleanup_acl(const acl_t *acl)
{
    if (*acl != NULL)
        (void)acl_free(*acl);
}

// ---- the node

// Opened without touching the device; it stays the same one however often its name is taken by others.
static int open_node(const char *path, struct stat *status)
{
    CLEANUP(cleanup_close) int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 || fstat(fd, status) < 0)
        return -errno;
    return S_ISLNK(status->st_mode) ? -ELOOP : steal_fd(&fd);
}

// libacl takes names only; this one is of what FD has open.
static void name_descriptor(char name[32], int fd)
{
    (void)snprintf(name, 32, "/proc/self/fd/%d", fd);
}

static acl_t read_acl(int fd)
{
    char name[32];

    name_descriptor(name, fd);
    return acl_get_file(name, ACL_TYPE_ACCESS);
}

static int write_acl(int fd, acl_t acl)
{
    char name[32];

    name_descriptor(name, fd);
    return acl_set_file(name, ACL_TYPE_ACCESS, acl) < 0 ? -errno : 0;
}

// ---- entries of an ACL

static unsigned rights_of(acl_entry_t entry)
{
    acl_permset_t set;
    unsigned rights = 0;

    if (acl_get_permset(entry, &set) < 0)
        return 0;
    rights |= acl_get_perm(set, ACL_READ) > 0 ? ACCESS_READ : 0;
    rights |= acl_get_perm(set, ACL_WRITE) > 0 ? ACCESS_WRITE : 0;
    rights |= acl_get_perm(set, ACL_EXECUTE) > 0 ? ACCESS_EXECUTE : 0;
    return rights;
}

static int set_rights(acl_entry_t entry, unsigned rights)
{
    acl_permset_t set;

    if (acl_get_permset(entry, &set) < 0 || acl_clear_perms(set) < 0 ||
        ((rights & ACCESS_READ) && acl_add_perm(set, ACL_READ) < 0) ||
        ((rights & ACCESS_WRITE) && acl_add_perm(set, ACL_WRITE) < 0) ||
        ((rights & ACCESS_EXECUTE) && acl_add_perm(set, ACL_EXECUTE) < 0))
        return -errno;
    return 0;
}

// The entry of that kind, of ID if it has one (else ID is not looked at); NULL: none.
static acl_entry_t find_entry(acl_t acl, acl_tag_t kind, id_t id)
{
    acl_entry_t entry;

    for (int which = ACL_FIRST_ENTRY; acl_get_entry(acl, which, &entry) == 1; which = ACL_NEXT_ENTRY) {
        acl_tag_t tag;
        bool same = acl_get_tag_type(entry, &tag) == 0 && tag == kind;
        if (same && (kind == ACL_USER || kind == ACL_GROUP)) {
            id_t *qualifier = acl_get_qualifier(entry);
            same = qualifier != NULL && *qualifier == id;
            (void)acl_free(qualifier);
        }
        if (same)
            return entry;
    }
    return NULL;
}

// What the mask leaves of the rights of users and groups that are named.
static unsigned mask_of(acl_t acl)
{
    acl_entry_t mask = find_entry(acl, ACL_MASK, 0);

    return mask != NULL ? rights_of(mask) : ACCESS_ALL;
}

// Writes what the mask takes away into the entries themselves, so that a new mask gives nobody more than before.
static int apply_mask(acl_t acl)
{
    unsigned mask = mask_of(acl);
    acl_entry_t entry;

    for (int which = ACL_FIRST_ENTRY; acl_get_entry(acl, which, &entry) == 1; which = ACL_NEXT_ENTRY) {
        acl_tag_t tag;
        int error;
        if (acl_get_tag_type(entry, &tag) < 0 || tag == ACL_USER_OBJ || tag == ACL_OTHER)
            continue;
        error = set_rights(entry, rights_of(entry) & mask);
        if (error < 0)
            return error;
    }
    return 0;
}

static bool names_anybody(acl_t acl)
{
    acl_entry_t entry;

    for (int which = ACL_FIRST_ENTRY; acl_get_entry(acl, which, &entry) == 1; which = ACL_NEXT_ENTRY) {
        acl_tag_t tag;
        if (acl_get_tag_type(entry, &tag) == 0 && (tag == ACL_USER || tag == ACL_GROUP))
            return true;
    }
    return false;
}

// A mask that leaves every entry what it says; none where nobody is named, as then it would hide the group's rights.
static int renew_mask(acl_t *acl)
{
    acl_entry_t mask = find_entry(*acl, ACL_MASK, 0);

    if (names_anybody(*acl))
        return acl_calc_mask(acl) < 0 ? -errno : 0;
    return mask != NULL && acl_delete_entry(*acl, mask) < 0 ? -errno : 0;
}

static int add_user(acl_t *acl, uid_t user, acl_entry_t *entry)
{
    if (acl_create_entry(acl, entry) < 0 || acl_set_tag_type(*entry, ACL_USER) < 0 ||
        acl_set_qualifier(*entry, &user) < 0)
        return -errno;
    return 0;
}

// RIGHTS for the user, or no entry (ACCESS_NONE); nobody else gains or loses any.
static int change_acl(acl_t *acl, uid_t user, unsigned rights)
{
    acl_entry_t entry;
    int error = apply_mask(*acl);

    if (error < 0)
        return error;
    entry = find_entry(*acl, ACL_USER, user);
    if (rights == ACCESS_NONE && entry != NULL)
        error = acl_delete_entry(*acl, entry) < 0 ? -errno : 0;
    if (rights != ACCESS_NONE && entry == NULL)
        error = add_user(acl, user, &entry);
    if (rights != ACCESS_NONE && error == 0)
        error = set_rights(entry, rights);
    return error < 0 ? error : renew_mask(acl);
}

static int change(int fd, uid_t user, unsigned rights)
{
    CLEANUP(cleanup_acl) acl_t acl = read_acl(fd);
    int error;

    if (acl == NULL)
        return -errno;
    error = change_acl(&acl, user, rights);
    return error < 0 ? error : write_acl(fd, acl);
}

// ---- who may already

// Whether a process acts as a member of the group; of one that has gone it is not known.
static bool is_member(pid_t process, gid_t group)
{
    CLEANUP(cleanup_free) char *path = string_printf("/proc/%d/status", (int)process);
    CLEANUP(cleanup_file) FILE *file = fopen(path, "re");
    CLEANUP(cleanup_free) char *line = NULL;
    size_t room = 0;
    bool found = false;

    while (file != NULL && !found && getline(&line, &room, file) > 0) {
        unsigned own = 0;
        if (sscanf(line, "Gid: %*u %*u %*u %u", &own) == 1)
            found = own == group;
        if (strncmp(line, "Groups:", 7) != 0)
            continue;
        for (char *word, *rest = line + 7; !found && (word = strtok_r(NULL, " \t\n", &rest)) != NULL;) {
            unsigned long number;
            found = string_to_number(word, 10, UINT32_MAX, &number) && number == group;
        }
    }
    return found;
}

// Rights of those groups that the process is a member of: one must have all that is wanted. False: it is in none.
static bool judge_groups(acl_t acl, const struct stat *status, pid_t process, unsigned wanted, bool *enough)
{
    unsigned mask = mask_of(acl);
    acl_entry_t entry;
    bool member = false;

    for (int which = ACL_FIRST_ENTRY; acl_get_entry(acl, which, &entry) == 1; which = ACL_NEXT_ENTRY) {
        gid_t group = status->st_gid;
        acl_tag_t tag;
        if (acl_get_tag_type(entry, &tag) < 0 || (tag != ACL_GROUP && tag != ACL_GROUP_OBJ))
            continue;
        if (tag == ACL_GROUP) {
            gid_t *qualifier = acl_get_qualifier(entry);
            group = qualifier != NULL ? *qualifier : group;
            (void)acl_free(qualifier);
        }
        if (!is_member(process, group))
            continue;
        member = true;
        *enough = *enough || (rights_of(entry) & mask & wanted) == wanted;
    }
    return member;
}

// As the kernel judges: the first of owner, named user, groups and others that the process is decides alone.
static bool may_use(acl_t acl, const struct stat *status, uid_t user, pid_t process)
{
    unsigned wanted = ACCESS_READ | ACCESS_WRITE;
    acl_entry_t entry = find_entry(acl, user == status->st_uid ? ACL_USER_OBJ : ACL_USER, user);
    bool enough = false;

    if (user == 0)
        return true;
    if (entry != NULL)
        return (rights_of(entry) & (user == status->st_uid ? ACCESS_ALL : mask_of(acl)) & wanted) == wanted;
    if (judge_groups(acl, status, process, wanted, &enough))
        return enough;
    entry = find_entry(acl, ACL_OTHER, 0);
    return entry != NULL && (rights_of(entry) & wanted) == wanted;
}

static unsigned rights_before(acl_t acl, uid_t user)
{
    acl_entry_t entry = find_entry(acl, ACL_USER, user);

    return entry != NULL ? rights_of(entry) & mask_of(acl) : ACCESS_NONE;
}

// ---- giving

// A search for a record of the same user on the same node.
struct search {
    const char *not_of; // this holder's own does not count; NULL: it does
    const struct stat *status;
    uid_t user;
    bool found;
    unsigned before;
};

static void look_at_record(void *user, const char *holder, const struct access_record *record)
{
    struct search *search = user;

    if (record->user != search->user || !access_record_is_of(record, search->status) ||
        (search->not_of != NULL && strcmp(holder, search->not_of) == 0))
        return;
    search->found = true;
    search->before = record->before;
}

// What the holder still has on another node, or for another user: of a run that was killed, or a VM of another user.
static int take_what_differs(const char *directory, const struct access_grant *grant, const struct stat *status,
                             char **why)
{
    CLEANUP(access_record_clear) struct access_record record = {0};
    int found = access_record_read(directory, grant->holder, &record, why);

    if (found < 0 && found != -EINVAL)
        return found;
    if (found < 0) { // damaged: nobody knows what it said
        free(steal_pointer(why));
        return access_record_remove(directory, grant->holder);
    }
    if (found == 0 || (record.user == grant->user && access_record_is_of(&record, status)))
        return 0;
    return access_take(directory, grant->holder, why);
}

static int refuse(const struct access_grant *grant, int error, const char *what, char **why)
{
    free(*why);
    *why = string_printf("user %u cannot be given access to %s: %s: %s", (unsigned)grant->user, grant->node, what,
                         strerror(-error));
    return error;
}

// Writes down, then does. What the user had before is what it had before the first that was given on this node.
static int give_on(const char *directory, const struct access_grant *grant, int fd, const struct stat *status,
                   char **why)
{
    struct search search = {.status = status, .user = grant->user};
    CLEANUP(cleanup_acl) acl_t acl = read_acl(fd);
    struct access_record record = {(char *)grant->node, status->st_rdev, status->st_ino, grant->user, 0};
    bool may;
    int error;

    if (acl == NULL)
        return refuse(grant, -errno, "its access list cannot be read", why);
    error = access_record_each(directory, look_at_record, &search);
    if (error < 0)
        return refuse(grant, error, "what else was given cannot be read", why);
    may = may_use(acl, status, grant->user, grant->process);
    if (may && !search.found)
        return 0;
    if (grant->user == status->st_uid)
        return refuse(grant, -EPERM, "it belongs to that user, who has taken these rights from it", why);
    record.before = search.found ? search.before : rights_before(acl, grant->user);
    error = access_record_write(directory, grant->holder, &record);
    if (error < 0)
        return refuse(grant, error, "it cannot be written down first", why);
    error = may ? 0 : change(fd, grant->user, ACCESS_READ | ACCESS_WRITE);
    return error < 0 ? refuse(grant, error, "its access list cannot be changed", why) : 0;
}

int access_give(const char *directory, const struct access_grant *grant, char **why)
{
    struct stat status = {0};
    CLEANUP(cleanup_close) int fd = open_node(grant->node, &status);
    int error;

    *why = NULL;
    if (fd < 0 && fd != -ENOENT)
        return refuse(grant, fd, "it cannot be looked at", why);
    if (fd < 0 || status.st_rdev != grant->number || !grant->is_current(grant->subject)) {
        *why = string_printf("%s: the device has gone", grant->node);
        return -ENODEV;
    }
    error = take_what_differs(directory, grant, &status, why);
    return error < 0 ? error : give_on(directory, grant, fd, &status, why);
}

// ---- taking back

static int take_from(const char *directory, const char *holder, const struct access_record *record, char **why)
{
    struct stat status;
    CLEANUP(cleanup_close) int fd = open_node(record->node, &status);
    struct search search = {.not_of = holder, .status = &status, .user = record->user};
    int error = 0;

    if (fd == -ENOENT || (fd >= 0 && !access_record_is_of(record, &status)))
        return 0; // with the node, what was given on it has gone
    if (fd >= 0)
        error = access_record_each(directory, look_at_record, &search);
    if (error == 0 && search.found)
        return 0;
    if (error == 0)
        error = fd < 0 ? fd : change(fd, record->user, record->before);
    if (error < 0)
        *why =
            string_printf("user %u still has access to %s: %s", (unsigned)record->user, record->node, strerror(-error));
    return error;
}

int access_take(const char *directory, const char *holder, char **why)
{
    CLEANUP(access_record_clear) struct access_record record = {0};
    int error;

    *why = NULL;
    error = access_record_read(directory, holder, &record, why);
    if (error == -EINVAL)
        access_record_remove(directory, holder); // said once
    if (error < 0)
        return error;
    if (error > 0)
        error = take_from(directory, holder, &record, why);
    return error < 0 ? error : access_record_remove(directory, holder);
}

struct sweep {
    const char *directory;
    bool (*is_there)(void *user, const char *holder);
    void *user;
};

static void sweep_one(void *user, const char *holder, const struct access_record *record)
{
    const struct sweep *sweep = user;
    CLEANUP(cleanup_free) char *why = NULL;

    (void)record;
    if (!sweep->is_there(sweep->user, holder) && access_take(sweep->directory, holder, &why) < 0)
        return; // it stays written down, for the next start
}

void access_sweep(const char *directory, bool (*is_there)(void *user, const char *holder), void *user)
{
    struct sweep sweep = {directory, is_there, user};

    (void)!access_record_each(directory, sweep_one, &sweep); // the next start may do better
}
