"""Walks Proxmox's API with proxmoxer, a client written for the real thing, unmodified.

Usage: proxmoxer_walk.py HOST PORT CA_FILE PASSWORD WEB_URL

It logs in as root@pam with a password, makes a pool, a role, a user and a token as a site does, and goes on with the
token: storages, upload and download, the life of a VM and of a template's clone, snapshots, tasks, the agent's errors.
Every step says what it saw; the first surprise ends the program with a traceback.
"""
import hashlib
import io
import sys

from proxmoxer import ProxmoxAPI
from proxmoxer.core import AuthenticationError, ResourceException
from proxmoxer.tools import Tasks

host, port, ca_file, password, web = sys.argv[1:]
where = {"port": int(port), "verify_ssl": ca_file}


def refused(call, status, text):
    """The call must fail with this status and reason."""
    try:
        call()
    except ResourceException as error:
        seen = (error.status_code, error.content)
        assert seen == (status, text), f"{seen} instead of {(status, text)}"
        return error
    raise AssertionError(f"no error, instead of {status} {text}")


def done(api, upid, exit="OK"):
    """Waits for a task with proxmoxer's own tool."""
    status = Tasks.blocking_status(api, upid, timeout=60, polling_interval=0.05)
    assert status is not None, f"{upid} does not end"
    assert status["exitstatus"] == exit, status
    return status


# Users, tokens, permissions: with a ticket, and its token against forged requests on each write.
try:
    ProxmoxAPI(host, user="root@pam", password="wrong", **where)
    raise AssertionError("a wrong password logs in")
except AuthenticationError as error:
    print("login refused:", error)
root = ProxmoxAPI(host, user="root@pam", password=password, **where)
print("version:", root.version.get()["version"])
assert {realm["realm"] for realm in root.access.domains.get()} == {"pam", "pve"}
privileges = (
    "VM.Allocate VM.Audit VM.Clone VM.Config.CDROM VM.Config.CPU VM.Config.Cloudinit VM.Config.Disk VM.Config.HWType "
    "VM.Config.Memory VM.Config.Network VM.Config.Options VM.Console VM.PowerMgmt VM.GuestAgent.Audit VM.Snapshot "
    "VM.Snapshot.Rollback Datastore.Allocate Datastore.AllocateSpace Datastore.AllocateTemplate Datastore.Audit SDN.Use "
    "Pool.Audit Pool.Allocate Sys.AccessNetwork"
)
root.access.roles.post(roleid="Walker", privs=privileges)
assert root.access.roles("Walker").get()["VM.Clone"] == 1
root.access.groups.post(groupid="walkers")
root.access.users.post(userid="walk@pve", groups="walkers", password="walk-secret-1", comment="walks")
made = root.access.users("walk@pve").token("ci").post(privsep=1)
secret = made["value"]
token = ProxmoxAPI(host, user="walk@pve", token_name="ci", token_value=secret, **where)
assert token.access.permissions.get() == {}, "a token without entries may do nothing"
refused(lambda: token.nodes("pve").status.get(), 403, "Permission check failed (/nodes/pve, Sys.Audit)")
root.access.acl.put(path="/", roles="Walker", groups="walkers")
root.access.acl.put(path="/", roles="Walker", tokens="walk@pve!ci")
assert token.access.permissions.get(path="/vms")["/vms"]["VM.Clone"] == 1
assert any(entry["ugid"] == "walk@pve!ci" for entry in root.access.acl.get())
assert [entry["tokenid"] for entry in root.access.users("walk@pve").token.get()] == ["ci"]
user = ProxmoxAPI(host, user="walk@pve", password="walk-secret-1", **where)
assert user.access.users.get()[0]["userid"] == "walk@pve"
refused(lambda: token.access.ticket.post(username="walk@pve", password="x"), 403,
        "Permission check failed (URI '/access/ticket' not available with API token, need proper ticket.")
print("access: roles, groups, users, tokens, permissions")

# The cluster and its nodes.
assert token.cluster.nextid.get() == "100"
node = token.nodes("pve")
assert [entry["node"] for entry in token.nodes.get()] == ["pve"]
assert node.network.get(type="any_bridge")[0]["iface"] == "vmbr0"
assert any(cpu["name"] == "host" for cpu in node.capabilities.qemu.cpu.get())
root.pools.post(poolid="walk", comment="made by the walk")

# Storage: upload, streamed and with its checksum; download; what is refused.
local = node.storage("local")
assert "iso" in local.status.get()["content"].split(",")
disc = io.BytesIO(b"\0" * 300_000)
disc.name = "walk.iso"
done(token, local.upload.post(content="iso", filename=disc))
assert [entry["volid"] for entry in local.content.get(content="iso")] == ["local:iso/walk.iso"]
sized = io.BytesIO(b"walk" * 1000)
sized.name = "sum.iso"
done(token, local.upload.post(**{"content": "iso", "checksum-algorithm": "sha256", "filename": sized,
                                 "checksum": hashlib.sha256(b"walk" * 1000).hexdigest()}))
wrong = io.BytesIO(b"text")
wrong.name = "walk.txt"
error = refused(lambda: local.upload.post(content="iso", filename=wrong), 400, "Parameter verification failed.")
assert error.errors == {"filename": "wrong file extension"}, error.errors
seen = node("query-url-metadata").get(url=f"{web}/d.iso")
assert seen["filename"] == "d.iso", seen
done(token, local("download-url").post(content="iso", filename="down.iso", url=f"{web}/d.iso"))
assert {entry["volid"] for entry in local.content.get(content="iso")} >= {"local:iso/down.iso"}
done(token, local.content("local:iso/sum.iso").delete())
print("storage: upload, checksum, download, delete")

# The life of a VM.
done(token, node.qemu.post(vmid=100, name="walk", memory=256, cores=1, pool="walk", scsihw="virtio-scsi-single",
                           scsi0="local:1,format=qcow2", ide2="local:iso/walk.iso,media=cdrom",
                           net0="virtio,bridge=vmbr0", boot="order=scsi0;ide2;net0", agent="enabled=1", tags="b;A"))
vm = node.qemu(100)
config = vm.config.get()
assert (config["tags"], config["boot"], config["memory"]) == ("a;b", "order=scsi0;ide2;net0", "256"), config
refused(lambda: node.qemu.post(vmid=100), 500, "unable to create VM 100 - VM 100 already exists on node 'pve'")
error = refused(lambda: vm.config.put(name="no_such_name"), 400, "Parameter verification failed.")
assert "name" in error.errors, error.errors
vm.config.put(description="ein Täst; with & and =", cores=2)
assert vm.config.get()["description"] == "ein Täst; with & and ="
done(token, vm.resize.put(disk="scsi0", size="+1G"))
done(token, vm.status.start.post())
assert vm.status.current.get()["status"] == "running"
done(token, vm.status.start.post(), "VM 100 already running")
refused(lambda: vm.agent.ping.post(), 500, "QEMU guest agent is not running")
try:
    vm.snapshot.get()
    snapshots = True
except ResourceException as error:
    assert error.status_code == 501, error
    snapshots = False
if snapshots:
    done(token, vm.snapshot.post(snapname="before", description="of the walk"))
    assert {entry["name"] for entry in vm.snapshot.get()} == {"before", "current"}
    done(token, vm.status.stop.post())
    done(token, vm.snapshot("before").rollback.post())
    done(token, vm.snapshot("before").delete())
    print("snapshots: take, list, roll back, delete")
else:
    done(token, vm.status.stop.post())
print("agent: refused while there is none")
done(token, vm.template.post())
done(token, vm.clone.post(newid=101, name="walk-clone", full=0, pool="walk"))
assert {member["vmid"] for member in root.pools("walk").get()["members"]} == {100, 101}
refused(lambda: node.qemu(101).config.put(bogus=1), 400, "Parameter verification failed.")
found = {entry["vmid"]: entry["template"] for entry in token.cluster.resources.get(type="vm")}
assert found == {100: 1, 101: 0}, found

# Tasks.
mine = node.tasks.get(limit=500)
assert {"imgcopy", "download", "qmcreate", "qmclone", "qmtemplate"} <= {task["type"] for task in mine}
upid = next(task["upid"] for task in mine if task["type"] == "imgcopy")
log = node.tasks(upid).log.get(limit=2)
assert len(log) == 2 and log[0]["t"].startswith("starting file import from: "), log
assert Tasks.decode_upid(upid)["type"] == "imgcopy"
failed = node.tasks.get(errors=1)
assert [task["status"] for task in failed] == ["VM 100 already running"], failed

# And away with it all.
done(token, node.qemu(101).delete(purge=1))
done(token, node.qemu(100).delete(purge=1))
refused(lambda: vm.config.get(), 500, "Configuration file 'nodes/pve/qemu-server/100.conf' does not exist")
root.pools("walk").delete()
root.access.users("walk@pve").delete()
try:
    token.version.get()
    raise AssertionError("the token of a user that is gone opens the API")
except (AuthenticationError, ResourceException) as error:
    print("token of a user that is gone:", error)
print("walked")
