// A model of the protocol between the host, the daemon and two VMs, for one place that devices are
// plugged into. For spin; docs/model/README.md says how to run it and what it leaves out.
//
// Devices are plugged, pulled and replaced; policy names one VM or the other; VMs die and start again; the
// daemon is killed and starts again; answers are lost with their connection; news come late, in any order,
// or only by a scan. In every order of all that:
//   - a device is never in two VMs, and never twice in one (assertion in `execute`);
//   - when all is quiet, it is in the VM that policy names, and nothing stale is left (process Quiet).

#ifndef TROUBLE
#define TROUBLE 3 // how many things go wrong, at most, in one history
#endif
#define SLOTS 3 // objects that fit into a VM
#define NONE 0
#define NOBODY 2 // no VM

// The words of the reconciler: enum operation_kind and enum result_kind. A test compares them.
mtype:operation = { LIST, ATTACH, DETACH };
mtype:result = { DONE, RETRY, PENDING, LOST, GONE };

// What is so.
byte trouble = TROUBLE;
byte instances, device; // how many were plugged; the one that is there now
byte target;            // the VM that policy names
bool up[2];
byte object[2 * SLOTS]; // the instances that each VM has objects of

// News under way to the daemon. They say where to look, and nothing else: so they can be late, be one for
// many, or be a scan after some were lost.
bool news_device, news_policy, news_vm[2];

// One operation in flight for each VM, and its answer.
bool requested[2]; // the VM has still to do it, or to drop it
bool orphan[2];    // the daemon that asked for it is dead: nobody hears the answer
mtype:operation operation[2];
byte argument[2]; // the instance to attach or detach
bool answered[2];
mtype:result answer[2];
byte listed[2 * SLOTS]; // goes with the answers DONE and PENDING

// The daemon's mind.
bool running, scanned;
byte seen, wanted;
bool known[2], alive[2];  // whether it runs is known; it runs
bool read[2];             // believed is what it has
byte believed[2 * SLOTS];
bool flight[2];
bool doubt[2];            // an attach of an unknown outcome
// Its memory on disk, which outlives it: where the instance may be.
byte memory_vm = NOBODY, memory_instance;

#define other(v) (1 - (v))
#define at(v, i) ((v) * SLOTS + (i))
#define count(list, v, d) ((list[at(v, 0)] == (d)) + (list[at(v, 1)] == (d)) + (list[at(v, 2)] == (d)))

#define clear(list, v) list[at(v, 0)] = NONE; list[at(v, 1)] = NONE; list[at(v, 2)] = NONE
#define copy(to, from, v) \
    to[at(v, 0)] = from[at(v, 0)]; to[at(v, 1)] = from[at(v, 1)]; to[at(v, 2)] = from[at(v, 2)]

// The first slot of VM v that has A has B then.
inline exchange(v, a, b)
{
    if
    :: object[at(v, 0)] == a -> object[at(v, 0)] = b
    :: object[at(v, 0)] != a && object[at(v, 1)] == a -> object[at(v, 1)] = b
    :: object[at(v, 0)] != a && object[at(v, 1)] != a && object[at(v, 2)] == a -> object[at(v, 2)] = b
    :: else
    fi
}

// ---- the host

inline plug()
{
    instances++;
    device = instances;
    news_device = true
}

proctype Host()
{
end:
    do
    :: atomic { trouble > 0 && device == NONE -> trouble--; plug() }
    :: atomic { trouble > 0 && device != NONE -> trouble--; device = NONE; news_device = true }
    :: atomic { trouble > 0 && device != NONE -> trouble--; plug() } // replaced before anybody looks
    :: atomic { trouble > 0 -> trouble--; target = other(target); news_policy = true }
    od
}

// ---- a VM: it does as it is told, as QEMU does, and guards nothing

inline execute(v)
{
    if
    :: operation[v] == ATTACH ->
        assert(count(object, v, NONE) > 0);
        exchange(v, NONE, argument[v]);
        assert(count(object, 0, device) + count(object, 1, device) <= 1 || device == NONE)
    :: operation[v] == DETACH -> exchange(v, argument[v], NONE)
    :: operation[v] == LIST
    fi
}

inline reply(v, result)
{
    requested[v] = false;
    if
    :: orphan[v] -> orphan[v] = false
    :: else ->
        answered[v] = true;
        answer[v] = result;
        copy(listed, object, v)
    fi
}

proctype Vm(byte v)
{
end:
    do
    :: atomic { requested[v] && up[v] -> execute(v); reply(v, DONE) }
    :: atomic { requested[v] && up[v] && trouble > 0 -> trouble--; reply(v, RETRY) }
    :: atomic { requested[v] && up[v] && trouble > 0 -> trouble--; reply(v, LOST) }             // not done
    :: atomic { requested[v] && up[v] && trouble > 0 -> trouble--; execute(v); reply(v, LOST) } // done
    :: atomic { requested[v] && up[v] && operation[v] == ATTACH && argument[v] != device -> reply(v, GONE) }
    :: atomic { requested[v] && orphan[v] -> requested[v] = false; orphan[v] = false }          // dropped
    :: atomic { requested[v] && up[v] && operation[v] == DETACH && trouble > 0 -> // the guest lets go later
        trouble--; reply(v, PENDING) }
    :: atomic { up[v] && trouble > 0 && count(object, v, device) > 0 && device != NONE -> // the guest ejects it
        trouble--; exchange(v, device, NONE); news_vm[v] = true }
    :: atomic { up[v] && trouble > 0 ->
        trouble--;
        up[v] = false;
        clear(object, v);
        if
        :: requested[v] -> reply(v, LOST)
        :: else
        fi;
        news_vm[v] = true }
    :: atomic { !up[v] && requested[v] -> reply(v, LOST) } // another process never hears what was said to this one
    :: atomic { !up[v] && !requested[v] -> up[v] = true; news_vm[v] = true }
    od
}

// ---- the daemon

inline begin(v, what, which)
{
    flight[v] = true;
    operation[v] = what;
    argument[v] = which;
    requested[v] = true
}

// The VM has objects that must go: of no device that is here, of another VM's, or one too many.
#define surplus(v, d) (d != NONE && (d != seen || wanted != v || count(believed, v, d) > 1))

// Another VM may have the device, as far as the daemon knows.
#ifdef BUG_NO_GATE // a planted mistake: only what is known counts
#define may_have(v) (alive[v] && read[v] && count(believed, v, seen) > 0)
#else
#define may_have(v) \
    (flight[v] && operation[v] == ATTACH && argument[v] == seen || \
     doubt[v] || \
     read[v] && count(believed, v, seen) > 0 || \
     !read[v] && memory_vm == v && memory_instance == seen && (!known[v] || alive[v]))
#endif

inline plan(v)
{
    if
    :: !read[v] -> begin(v, LIST, NONE)
    :: read[v] && surplus(v, believed[at(v, 0)]) -> begin(v, DETACH, believed[at(v, 0)])
    :: read[v] && surplus(v, believed[at(v, 1)]) -> begin(v, DETACH, believed[at(v, 1)])
    :: read[v] && surplus(v, believed[at(v, 2)]) -> begin(v, DETACH, believed[at(v, 2)])
    :: else ->
#ifndef BUG_NO_MEMORY // a planted mistake: what is under way is not written down first
        memory_vm = v;
        memory_instance = seen;
#endif
        begin(v, ATTACH, seen)
    fi
}

#define has_surplus(v) \
    (surplus(v, believed[at(v, 0)]) || surplus(v, believed[at(v, 1)]) || surplus(v, believed[at(v, 2)]))
#define attaches(v) \
    (seen != NONE && wanted == v && count(believed, v, seen) == 0 && !may_have(other(v)))
#define has_work(v) (!read[v] || has_surplus(v) || attaches(v))

inline hear(v)
{
    answered[v] = false;
    flight[v] = false;
    if
    :: answer[v] == DONE || answer[v] == PENDING ->
        copy(believed, listed, v);
        read[v] = true;
        doubt[v] = false
    :: answer[v] == LOST ->
#ifndef BUG_TRUST_LOST // a planted mistake: an answer that was lost counts as not done
        read[v] = false;
        doubt[v] = doubt[v] || operation[v] == ATTACH && argument[v] == seen
#else
        skip
#endif
    :: answer[v] == GONE -> seen = (argument[v] == seen -> NONE : seen)
    :: answer[v] == RETRY // nothing was done: once more
    fi
}

inline look_at_vm(v)
{
    news_vm[v] = false;
    known[v] = true;
    alive[v] = up[v];
#ifndef BUG_NO_LOOK // a planted mistake: what a VM had once it has still
    read[v] = false;
#endif
    if
    :: !up[v] -> doubt[v] = false; clear(believed, v)
    :: else
    fi
}

proctype Daemon()
{
    byte v;
end:
    do
    :: atomic { running && news_device -> news_device = false; seen = device; scanned = true }
    :: atomic { running && news_policy -> news_policy = false; wanted = target }
    :: atomic { running && news_vm[0] && !flight[0] -> look_at_vm(0) }
    :: atomic { running && news_vm[1] && !flight[1] -> look_at_vm(1) }
    :: atomic { running && answered[0] -> hear(0) }
    :: atomic { running && answered[1] -> hear(1) }
    :: atomic { running && scanned && alive[0] && !flight[0] && !requested[0] && has_work(0) -> plan(0) }
    :: atomic { running && scanned && alive[1] && !flight[1] && !requested[1] && has_work(1) -> plan(1) }
    :: atomic { running && trouble > 0 -> // SIGKILL
        trouble--;
        running = false; scanned = false;
        seen = NONE;
        for (v : 0 .. 1) {
            known[v] = false; alive[v] = false; read[v] = false; doubt[v] = false;
            clear(believed, v);
            orphan[v] = requested[v];
            flight[v] = false; answered[v] = false
        }
        v = 0 }
    :: atomic { !running -> // it looks at everything first
        running = true;
        wanted = target;
        news_device = true; news_policy = false;
        news_vm[0] = true; news_vm[1] = true }
    od
}

// Runs only when nobody else can: all troubles are over or nobody wants to make any more.
proctype Quiet()
{
    do
    :: timeout ->
        assert(trouble == 0);
        assert(running && up[0] && up[1]);
        assert(device == NONE || count(object, target, device) == 1);
        assert(count(object, other(target), NONE) == SLOTS);
        assert(count(object, target, NONE) == SLOTS - (device != NONE));
        break
    od
}

init {
    atomic { run Host(); run Vm(0); run Vm(1); run Daemon(); run Quiet() }
}
