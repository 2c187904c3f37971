#!/usr/bin/env python3
"""Plants one bug at a time in the reconciler and requires that the simulator finds each.

usage: mutants.py SOURCE_ROOT BUILD_DIR COMPILER...
A pattern that matches no more, or more than once, is an error: the list must follow the code.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

HISTORIES = 20000
RARE = {"what people said of another place stands for ever": 150000}  # needs more of them

# name, file, text as it stands (blanks are of no importance), text that takes its place
MUTANTS = [
    ("nothing waits for a list", "reconcile_plan.c", "if (!vm->listed) {", "if (!vm->listed && !vm->heard) {"),
    ("a lost attach is forgotten", "reconcile_results.c",
     "vm->doubt = device_reference(device);", "vm->doubt = NULL;"),
    ("foreign objects are removed", "reconcile_plan.c",
     "if (!holding->attachment.ours) return REMOVAL_NONE;", ""),
    ("a move does not wait for the old VM", "reconcile_devices.c",
     "if (judge_holders(reconcile, record, verdict->reason)) return;", ""),
    ("stale objects go before the scan is complete", "reconcile_plan.c",
     "return reconcile->scanned ? REMOVAL_STALE : REMOVAL_NONE;", "return REMOVAL_STALE;"),
    ("stale objects stay", "reconcile_plan.c",
     "return reconcile->scanned ? REMOVAL_STALE : REMOVAL_NONE;", "return REMOVAL_NONE;"),
    ("an attach does not wait for the disk", "reconcile_plan.c",
     "if (reconcile->memory_now != reconcile->memory_saved) {", "if (false) {"),
    ("news during an operation is lost", "reconcile_results.c",
     "if (vm->look_again) vm->listed = false;", ""),
    ("what a dead VM had is still counted", "reconcile_vms.c",
     "forget(vm); forget_trouble(reconcile, vm, now);", "forget_trouble(reconcile, vm, now);"),
    ("a memory of another VM is ignored", "reconcile_devices.c",
     "const char *holder = reconcile_memory_holder(reconcile, record->device, vm);", "const char *holder = NULL;"),
    ("a free port is no news", "reconcile_results.c", "if (any_left(vm)) vm_record_retry(", "if (false) vm_record_retry("),
    ("an eject is not seen", "reconcile_results.c", "record->ejected = true;", "record->ejected = false;"),
    ("dead objects stay", "reconcile_plan.c", "return REMOVAL_DEAD;", "return REMOVAL_NONE;"),
    ("without -a all the same", "reconcile_devices.c",
     "(record->managed || reconcile->attach_connected)", "(record->managed || true)"),
    ("a replug in place is not seen", "reconcile.c",
     "if (record && record->device->instance != device->instance) {", "if (false) {"),
    ("memory does not keep ports", "reconcile_memory.c",
     "return holding && vm->type == VM_CROSVM ? (char *)holding->attachment.object : NULL;", "return NULL;"),
    ("memory names all that may be on their way to crosvm", "reconcile_memory.c",
     "if (vm->type == VM_CROSVM) return vm->plan.set", "if (false) return vm->plan.set"),
    ("what was sent to crosvm is forgotten with its device", "reconcile_memory.c",
     "if (vm->type != VM_CROSVM || !device ||", "if (true || !device ||"),
    ("what was on the ports before is of no importance", "crosvm_ports.c",
     "&& !(doubt->before >> port & 1)", ""),
    ("a port stays ours whatever it has", "crosvm_ports.c", "if (!same) {", "if (false) {"),
    ("a port that is used anew is the same object", "reconcile_results.c", "return same ? holding : NULL;",
     "return holding;"),
    ("what people took out goes back in", "reconcile_devices.c", "&& !record->detached) wanted =", ") wanted ="),
    ("what people decided is not looked up for a new device", "reconcile_devices.c",
     "device_record_recall(reconcile, record); device_record_decide(reconcile, record); reconcile->devices =",
     "device_record_decide(reconcile, record); reconcile->devices ="),
    ("what people decided is not made durable first", "reconcile.c",
     "if (reconcile->choices_changed) {", "if (reconcile->choices_changed && !reconcile->device_count) {"),
    ("what people said of another place stands for ever", "reconcile_requests.c",
     "forget_elsewhere(reconcile, record); reconcile->choices_changed", "reconcile->choices_changed"),
    ("a suspended VM gets devices", "reconcile_devices.c", "if (record->rests) wanted = NULL;", ""),
    ("a person's word for a VM is not heard", "reconcile_requests.c",
     "record->picked = steal_pointer(&picked);", "record->picked = NULL;"),
    ("people are not waited for", "reconcile_choose.c",
     "return may && now < device_record_selects_until(reconcile, record);", "return false;"),
    ("what a guest took out goes into another VM", "reconcile_choose.c",
     "return record->seat && group_names(group, record->seat->name) ? record->seat : maybe;", "return maybe;"),
    ("people are asked for ever", "reconcile_plan.c", "if (reconcile->devices[i]->now.why == WHY_SELECT)",
     "if (false)"),
    ("an IOMMU group is in two VMs", "reconcile_devices.c",
     "return judge_foreign(reconcile, record) || device_record_judge_group(reconcile, record);",
     "return judge_foreign(reconcile, record);"),
    ("two functions of an IOMMU group leave at once", "reconcile_iommu.c",
     "if (judged && other->ready && other->wanted != record->wanted)", "if (false)"),
    ("what is on its way is not of the IOMMU group", "reconcile_iommu.c",
     "if (vm->flight.busy && !vm->flight.orphan &&", "if (false &&"),
    ("a choice parts an IOMMU group", "reconcile_requests.c", "error = take_along(reconcile, record, vm, now);", ""),
    ("functions are suspended with USB devices", "reconcile_devices.c",
     "vm->suspended[record->device->kind]", "vm->suspended[DEVICE_USB]"),
    ("crosvm gets functions while it runs", "reconcile_devices.c",
     "if (record->device->kind != DEVICE_USB && vm->type != VM_QEMU)", "if (false)"),
    ("what a VM has is not managed", "reconcile_devices.c",
     "if (device_record_object(vm, record)) record->managed = true;", ""),
    ("a lost attach counts as an eject", "reconcile_results.c",
     "device_record_fail(reconcile, record, TROUBLE_RETRY, record->trouble ? NULL : text, now);",
     "device_record_fail(reconcile, record, TROUBLE_RETRY, record->trouble ? NULL : text, now); record->ejected = true;"),
    ("what moves leaves its detach behind", "reconcile_devices.c",
     "recall_twins(reconcile, device, now); for (size_t", "for (size_t"),
    ("a result of an earlier process is believed", "reconcile_results.c", "if (!flight.orphan)", "if (true)"),
]

PORTS = "src/vmm/crosvm_ports.c"
SOURCES = [PORTS, "src/core/choice.c", "src/core/device.c", "src/core/memory.c", "src/core/operation.c", "src/util/json.c", "src/util/text.c"]


def pattern(text):
    """The text as a pattern to which blanks are of no importance."""
    tokens = re.findall(r"\w+|[^\w\s]", text)
    return re.compile(r"\s*".join(re.escape(token) for token in tokens))


def plant(core, name, file, old, new):
    path = core / file
    text, count = pattern(old).subn(lambda _: new, path.read_text())
    if count != 1:
        sys.exit(f'mutants: "{name}": the pattern matches {count} times in {file}; it must follow the code')
    path.write_text(text)


def compile_objects(compiler, root, core, sources, out):
    objects = []
    for source in sources:
        target = out / (source.stem + ".o")
        subprocess.run([*compiler, "-O1", "-w", "-std=gnu17", "-D_GNU_SOURCE", f"-I{root}/src", f"-I{root}/tests/sim",
                        f"-iquote{core}", "-c", str(source), "-o", str(target)], check=True)
        objects.append(str(target))
    return objects


def survives(compiler, root, base, mutant, out):
    core = out / "core"
    core.mkdir()
    for source in [root / PORTS, *sorted((root / "src/core").glob("reconcile*.[ch]"))]:
        (core / source.name).write_text(source.read_text())
    plant(core, *mutant)
    objects = compile_objects(compiler, root, core, [core / mutant[1]], out)
    changed = {pathlib.Path(name).name for name in objects}
    linked = objects + [name for name in base if pathlib.Path(name).name not in changed]
    subprocess.run([*compiler, *linked, "-ljson-c", "-o", str(out / "sim")], check=True)
    result = subprocess.run([str(out / "sim"), "--histories", str(RARE.get(mutant[0], HISTORIES))], capture_output=True, text=True,
                            timeout=200, check=False)
    found = result.returncode == 1 and "failed" in result.stdout
    print(f"{'found' if found else 'NOT FOUND'}: {mutant[0]}: {result.stdout.splitlines()[0] if found else ''}",
          flush=True)
    return not found


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    compiler = sys.argv[3:] or ["cc"]
    with tempfile.TemporaryDirectory(dir=sys.argv[2]) as directory:
        out = pathlib.Path(directory)
        sources = sorted((root / "tests/sim").glob("*.c")) + sorted((root / "src/core").glob("reconcile*.c"))
        base = compile_objects(compiler, root, root, sources + [root / source for source in SOURCES], out)
        survivors = 0
        for number, mutant in enumerate(MUTANTS):
            place = out / str(number)
            place.mkdir()
            survivors += survives(compiler, root, base, mutant, place)
    print(f"{len(MUTANTS)} planted bugs, {survivors} not found")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
