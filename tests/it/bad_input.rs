//! What bad input gets: every finding in one run, with file and line, what to do, and no effect on the target.

use forge_lab::LEAST_PRIVILEGES_PVE9;

use crate::support::lab_site::{Done, LabSite, PROFILE, TOKEN};

/// Asserts that forge only looked, and masks what differs from run to run.
fn refused(site: &LabSite, done: &Done, code: i32) -> String {
    assert_eq!(done.code, Some(code), "{}", done.stderr);
    assert_eq!(done.stdout, "", "findings are talk, not data");
    let changing: Vec<_> =
        site.lab.requests().into_iter().filter(|request| request.method != "GET").collect();
    assert!(changing.is_empty(), "{changing:?}");
    assert!(!site.path().join("output").exists(), "no evidence of a build that never began");
    site.assert_nothing_left();
    assert!(!done.stderr.contains(&site.secret), "the token's secret is masked");
    let fingerprint = site.lab.fingerprint();
    done.stderr
        .replace(&site.lab.address().to_string(), "127.0.0.1:PORT")
        .replace(fingerprint, "FINGERPRINT")
        .replace(&fingerprint.replace(':', "").to_lowercase(), "FINGERPRINT")
        .replace(&site.path().display().to_string(), "FOLDER")
}

async fn build(site: &LabSite) -> Done {
    site.run(&["build", "tiny.toml"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_with_several_typos_is_told_all_of_them_at_once() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    site.write(
        "tiny.toml",
        r#"schema = 1
name = "Tiny Box"
extend = "base-linux.toml"

[template]
name = "tpl_{{ dat }}"

[source]
clon = "boot-vm"

[vm]
cores = "two"
memory = "1 gig"

[boot]
steps = [{ keys = "<entr>" }, { wait-for = "login", witin = "5s" }]

[[provision]]
name = "x"
shel = ["true"]
timeout = "soon"

[seal]
logz = false
"#,
    );
    insta::assert_snapshot!(refused(&site, &build(&site).await, 3), @r#"
error: tiny.toml:2:8: `Tiny Box` is no name for a profile
    help: lower-case letters, digits, `-` and `.`, a letter or digit first, 40 at most
error: tiny.toml:3:1: unknown key `extend`
    help: did you mean `extends`?
error: tiny.toml:6:8: `{{ dat }}` is not known (`template.name`)
    help: did you mean `date`?
error: tiny.toml:9:1: unknown key `source.clon`
    help: did you mean `clone`?
error: tiny.toml:12:9: expected an integer, found a string (`vm.cores`)
error: tiny.toml:13:10: `1 gig` is no size (`vm.memory`)
    help: write it like "4GiB", "512MiB" or "20G" (G and GiB are both 1024 MiB)
error: tiny.toml:16:19: <entr> is no key and no wait; did you mean <enter>? to type it, write <lt>entr> (at byte 0) (`boot.steps[0].keys`)
error: tiny.toml:16:53: unknown key `boot.steps[1].witin`
    help: did you mean `within`?
error: tiny.toml:20:1: unknown key `provision[0].shel`
    help: did you mean `shell`?
error: tiny.toml:21:11: `soon` is no time (`provision[0].timeout`)
    help: write it like "90s", "10m", "1h30m" or "500ms"
error: tiny.toml:24:1: there is no seal operation `logz` (`seal.logz`)
    help: did you mean `logs`?
"#);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_file_with_typos_is_told_all_of_them_at_once_with_those_of_the_profile() -> anyhow::Result<()>
{
    let site = LabSite::in_name_only().await?;
    site.write(
        "forge.toml",
        r#"default-target = "labb"

[targets.lab]
type = "proxmox"
url = "http://127.0.0.1:8006"
token-id = "forge@pve"
token-secret = "0d5ee4a4-0000-4000-8000-000000000000"
tls = { fingerprint = "AB:CD" }
node = ["pve"]
storage = { disk = "local" }
vmids = "9099-9001"
seed = { bind = "localhost", ports = "88000" }
"#,
    );
    site.write("tiny.toml", &PROFILE.replace("clone =", "cloen ="));
    let done = build(&site).await;
    assert!(!done.stderr.contains("0d5ee4a4"), "a secret in the wrong place is not repeated");
    insta::assert_snapshot!(refused(&site, &done, 3), @r#"
error: forge.toml:1:18: there is no target `labb` (`default-target`)
    help: did you mean `lab`?
error: forge.toml:5:7: `http://127.0.0.1:8006` is no https:// address (`targets.lab.url`)
    help: Proxmox's API is at https://HOST:8006
error: forge.toml:6:12: `forge@pve` is no token id (`targets.lab.token-id`)
    help: it has the form user@realm!token, as Proxmox shows it
error: forge.toml:7:16: `targets.lab.token-secret`: a secret does not belong in this file
    help: write { env = "NAME" }, { file = "PATH" } or { command = ["…"] }
error: forge.toml:8:23: this is no SHA-256 fingerprint (`targets.lab.tls.fingerprint`)
    help: it has 32 pairs of hexadecimal digits; `pvenode cert info` shows it
error: forge.toml:9:1: unknown key `targets.lab.node`
    help: did you mean `nodes`?
error: forge.toml:10:13: unknown key `targets.lab.storage.disk`
    help: did you mean `disks`?
error: forge.toml:11:9: `9099-9001` is no range between 100 and 999999999 (`targets.lab.vmids`)
    help: write it like "9000-9099"
error: forge.toml:12:17: `localhost` is no IP address (`targets.lab.seed.bind`)
error: forge.toml:12:38: `88000` is no range between 0 and 65535 (`targets.lab.seed.ports`)
    help: write it like "9000-9099"
error: tiny.toml:11:1: unknown key `source.cloen`
    help: did you mean `clone`?
"#);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_target_does_not_have_is_told_with_what_it_has() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    site.write(
        "forge.toml",
        &site
            .forge_toml()
            .replace("disks = \"local\"", "disks = \"ceph\"")
            .replace("bridge = \"vmbr0\"", "bridge = \"vmbr7\""),
    );
    site.write(
        "tiny.toml",
        &PROFILE.replace("[deadlines]", "[vm]\nnetworks = [{ model = \"virtio\" }]\ncloud-init = { slot = \"ide2\", storage = \"zfs\" }\ndisks = [{ slot = \"scsi1\" }]\n\n[deadlines]"),
    );
    insta::assert_snapshot!(refused(&site, &build(&site).await, 3), @r#"
error: there is no storage `ceph` on pve (`targets.lab.storage`)
    help: there are these storages: local
error: tiny.toml:15:41: there is no storage `zfs` on pve (`vm.cloud-init.storage`)
    help: there are these storages: local
error: there is no bridge `vmbr7` on pve (`targets.lab.bridge`)
    help: did you mean `vmbr0`? there are these bridges: vmbr0
error: tiny.toml:16:10: boot-vm has no disk scsi1 (`vm.disks[0]`)
    help: it has: scsi0; with a `size` it is added
"#);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hardware_that_the_release_does_not_take_is_told_with_its_lines() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let vm = r#"[vm]
cpu = "hots"
ostype = "l27"
vga = { type = "virtio", memory = 2 }
args = "-s"
disks = [{ slot = "scsi0", cache = "never", options = { mpbs = 3 } }]
networks = [{ model = "virtoi", mtu = 70000 }]
efi-disk = { storage = "local", type = "8m" }

[vm.proxmox]
scsihv = "lsi"
tags = "x"

[deadlines]"#;
    site.write("tiny.toml", &PROFILE.replace("[deadlines]", vm));
    let told = refused(&site, &site.run(&["plan", "tiny.toml"]).await, 3);
    for line in [
        "tiny.toml:14:7: the node offers no CPU type `hots` (`vm.cpu`)",
        "tiny.toml:15:10: Proxmox VE 9.2 takes no `l27` for `ostype` (`vm.ostype`)",
        "tiny.toml:16:1: `memory` of `vga` is 4 at least, not 2 (`vm.vga`)",
        "tiny.toml:17:8: Proxmox VE lets only root@pam itself set `args` to this, and no token (`vm.args`)",
        "tiny.toml:18:36: Proxmox VE 9.2 takes no `never` for `cache` of `scsi0` (`vm.disks[0].cache`)",
        "tiny.toml:18:10: Proxmox VE 9.2 knows no `mpbs` in `scsi0` (`vm.disks[0].mpbs`)",
        "tiny.toml:19:23: Proxmox VE 9.2 takes no `virtoi` for `model` of `net0` (`vm.networks[0].model`)",
        "tiny.toml:19:39: `mtu` of `net0` is 65520 at most, not 70000 (`vm.networks[0].mtu`)",
        "tiny.toml:20:1: Proxmox VE 9.2 takes no `8m` for `efitype` of `efidisk0` (`vm.efi-disk.efitype`)",
        "tiny.toml:23:10: Proxmox VE 9.2 knows no key `scsihv` (`vm.proxmox.scsihv`)",
        "tiny.toml:24:8: `tags` is set by forge itself (`vm.proxmox.tags`)",
    ] {
        assert!(told.contains(line), "{line}:\n{told}");
    }
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_clone_source_is_told_with_its_line() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    site.write("tiny.toml", &PROFILE.replace("clone = \"boot-vm\"", "clone = \"boot-wm\""));
    insta::assert_snapshot!(refused(&site, &build(&site).await, 3), @r#"
error: tiny.toml:11:9: no VM called `boot-wm` is visible to the token (`source.clone`)
    help: did you mean `boot-vm`? there are these VMs: boot-vm
"#);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_another_certificate_is_refused_and_both_fingerprints_are_told() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let other = vec!["AB"; 32].join(":");
    site.write("forge.toml", &site.forge_toml().replace(site.lab.fingerprint(), &other));
    let done = build(&site).await;
    assert!(site.lab.requests().is_empty(), "the token is not shown to a stranger");
    insta::assert_snapshot!(refused(&site, &done, 3), @r#"
error: target `lab` (https://127.0.0.1:PORT) shows a certificate that is not trusted: expected SHA-256 fingerprint AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB, saw FINGERPRINT
    help: compare it with what `pvenode cert info` shows on the host; if it is the same, write this into the target's table in forge.toml: tls = { fingerprint = "FINGERPRINT" }
"#);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_no_root_vouches_for_is_refused_with_its_fingerprint() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let unpinned = site
        .forge_toml()
        .lines()
        .filter(|line| !line.starts_with("tls"))
        .fold(String::new(), |text, line| text + line + "\n");
    site.write("forge.toml", &unpinned);
    let done = build(&site).await;
    assert!(site.lab.requests().is_empty(), "the token is not shown to a stranger");
    insta::assert_snapshot!(refused(&site, &done, 3), @r#"
error: target `lab` (https://127.0.0.1:PORT) shows a certificate that is not trusted: no trusted authority has issued it; its SHA-256 fingerprint is FINGERPRINT
    help: compare it with what `pvenode cert info` shows on the host; if it is the same, write this into the target's table in forge.toml: tls = { fingerprint = "FINGERPRINT" }
"#);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_answer_is_named() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    // Bound and let go: nobody listens there.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    site.write("forge.toml", &site.forge_toml().replace(&site.lab.address().to_string(), &nobody));
    let told = refused(&site, &build(&site).await, 3).replace(&nobody, "127.0.0.1:NOBODY");
    insta::assert_snapshot!(told, @r#"
error: target `lab` (https://127.0.0.1:NOBODY) can't be reached: Connection refused (os error 111)
    help: check the target's `url`, its service and the firewall between
"#);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_an_address_is_named() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    site.write("forge.toml", &site.forge_toml().replace(&site.lab.url(), "https://pve.invalid:8006"));
    let told = refused(&site, &build(&site).await, 3);
    // How a name is not found differs with the machine's resolver.
    assert!(told.contains("target `lab` (https://pve.invalid:8006) can't be reached: "), "{told}");
    assert!(told.contains("help: check the target's `url`"), "{told}");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_of_the_token_is_told_without_repeating_it() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let wrong = "11111111-2222-4333-8444-555555555555";
    let done = site.start_with_secret(&["build", "tiny.toml"], Some(wrong)).ended().await;
    assert!(!done.stderr.contains(wrong));
    insta::assert_snapshot!(refused(&site, &done, 3), @r#"
error: target `lab` (https://127.0.0.1:PORT) refused the credentials: Authentication failed!
    help: check `token-id` and `token-secret`, or `user` and `password`; has the token expired?
"#);
    let done = site.start_with_secret(&["build", "tiny.toml"], None).ended().await;
    insta::assert_snapshot!(refused(&site, &done, 3), @r#"
error: the token's secret of target `lab`: the environment variable PROXMOX_TOKEN_SECRET is not set
    help: `targets.lab.token-secret` of the site file says where it is read from
"#);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_missing_privilege_is_named_with_its_path() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let without = |left_out: &[&str]| -> Vec<&'static str> {
        LEAST_PRIVILEGES_PVE9.iter().copied().filter(|privilege| !left_out.contains(privilege)).collect()
    };
    site.lab.set_token_access(TOKEN, &[("/", &without(&["VM.Config.HWType"]))]);
    insta::assert_snapshot!(refused(&site, &build(&site).await, 3), @r#"
warning: token forge@pve!build lacks VM.Config.HWType on /vms (needed to hand over the seed in the SMBIOS serial) (`targets.lab.token-id`)
    help: as root on a node: pveum role add ForgeBuild --privs VM.Config.HWType || pveum role modify ForgeBuild --append 1 --privs VM.Config.HWType; pveum acl modify /vms --roles ForgeBuild --users 'forge@pve' --tokens 'forge@pve!build'
error: the seed can't reach the guest in any way that is allowed (`seed.delivery`)
    help: cloud-init-drive: boot-vm has no cloud-init drive, and the profile adds none; smbios: token forge@pve!build lacks VM.Config.HWType on /vms (needed to hand over the seed in the SMBIOS serial); disc: token forge@pve!build lacks Datastore.AllocateTemplate on /storage/local; typed: no boot step types `{{ seed.url }}`
"#);
    site.lab.set_token_access(TOKEN, &[("/", &without(&["VM.Clone", "Datastore.AllocateSpace", "SDN.Use"]))]);
    insta::assert_snapshot!(refused(&site, &build(&site).await, 3), @r#"
error: token forge@pve!build lacks VM.Clone on /vms/9000 (needed to clone the source) (`targets.lab.token-id`)
    help: as root on a node: pveum role add ForgeBuild --privs VM.Clone || pveum role modify ForgeBuild --append 1 --privs VM.Clone; pveum acl modify /vms/9000 --roles ForgeBuild --users 'forge@pve' --tokens 'forge@pve!build'
error: token forge@pve!build lacks Datastore.AllocateSpace on /storage/local (needed to put disks there) (`targets.lab.token-id`)
    help: as root on a node: pveum role add ForgeBuild --privs Datastore.AllocateSpace || pveum role modify ForgeBuild --append 1 --privs Datastore.AllocateSpace; pveum acl modify /storage/local --roles ForgeBuild --users 'forge@pve' --tokens 'forge@pve!build'
error: token forge@pve!build lacks SDN.Use on /sdn/zones/localnetwork/vmbr0 (needed to connect the build VM to it) (`targets.lab.token-id`)
    help: as root on a node: pveum role add ForgeBuild --privs SDN.Use || pveum role modify ForgeBuild --append 1 --privs SDN.Use; pveum acl modify /sdn/zones/localnetwork/vmbr0 --roles ForgeBuild --users 'forge@pve' --tokens 'forge@pve!build'
"#);
    site.lab.set_token_access(TOKEN, &[]);
    insta::assert_snapshot!(refused(&site, &build(&site).await, 3), @r#"
error: tiny.toml:11:9: no VM called `boot-vm` is visible to the token (`source.clone`)
    help: the token sees no VMs at all
error: token forge@pve!build lacks VM.Allocate on /vms (needed to create, convert and remove the build VM) (`targets.lab.token-id`)
    help: as root on a node: pveum role add ForgeBuild --privs VM.Allocate || pveum role modify ForgeBuild --append 1 --privs VM.Allocate; pveum acl modify /vms --roles ForgeBuild --users 'forge@pve' --tokens 'forge@pve!build'
error: token forge@pve!build lacks VM.Audit on /vms (needed to read the build VM's configuration and status) (`targets.lab.token-id`)
    help: as root on a node: pveum role add ForgeBuild --privs VM.Audit || pveum role modify ForgeBuild --append 1 --privs VM.Audit; pveum acl modify /vms --roles ForgeBuild --users 'forge@pve' --tokens 'forge@pve!build'
error: token forge@pve!build lacks VM.PowerMgmt on /vms (needed to start and stop the build VM) (`targets.lab.token-id`)
    help: as root on a node: pveum role add ForgeBuild --privs VM.PowerMgmt || pveum role modify ForgeBuild --append 1 --privs VM.PowerMgmt; pveum acl modify /vms --roles ForgeBuild --users 'forge@pve' --tokens 'forge@pve!build'
error: token forge@pve!build lacks VM.Config.Options on /vms (needed to mark the build VM and name the template) (`targets.lab.token-id`)
    help: as root on a node: pveum role add ForgeBuild --privs VM.Config.Options || pveum role modify ForgeBuild --append 1 --privs VM.Config.Options; pveum acl modify /vms --roles ForgeBuild --users 'forge@pve' --tokens 'forge@pve!build'
error: token forge@pve!build lacks VM.GuestAgent.Audit on /vms (needed to learn the guest's addresses from its agent) (`targets.lab.token-id`)
    help: as root on a node: pveum role add ForgeBuild --privs VM.GuestAgent.Audit || pveum role modify ForgeBuild --append 1 --privs VM.GuestAgent.Audit; pveum acl modify /vms --roles ForgeBuild --users 'forge@pve' --tokens 'forge@pve!build'
warning: token forge@pve!build lacks VM.Config.HWType on /vms (needed to hand over the seed in the SMBIOS serial) (`targets.lab.token-id`)
    help: as root on a node: pveum role add ForgeBuild --privs VM.Config.HWType || pveum role modify ForgeBuild --append 1 --privs VM.Config.HWType; pveum acl modify /vms --roles ForgeBuild --users 'forge@pve' --tokens 'forge@pve!build'
error: token forge@pve!build lacks Datastore.AllocateSpace on /storage/local (needed to put disks there) (`targets.lab.token-id`)
    help: as root on a node: pveum role add ForgeBuild --privs Datastore.AllocateSpace || pveum role modify ForgeBuild --append 1 --privs Datastore.AllocateSpace; pveum acl modify /storage/local --roles ForgeBuild --users 'forge@pve' --tokens 'forge@pve!build'
"#);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_seen_on_proxmox_is_not_waited_for() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let steps = "\n[boot]\nboot-wait = \"1s\"\nsteps = [\n  { wait-for = \"login:\" },\n  \
                 { wait-for = { serial = 'login:$' } },\n]\n";
    site.write("tiny.toml", &format!("{PROFILE}{steps}"));
    let told = refused(&site, &build(&site).await, 3);
    assert!(told.contains("Proxmox VE keeps no record of the serial port"), "{told}");
    assert!(told.contains("`boot.steps[1].wait-for.serial`"), "{told}");
    assert!(told.starts_with("error: tiny.toml:"), "{told}");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_without_a_value_is_told_with_how_to_give_it_one() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    site.write(
        "tiny.toml",
        &format!("{}\n[variables.domain]\ntype = \"string\"\ndescription = \"the DNS domain\"\n\n[variables.size]\ntype = \"integer\"\n", PROFILE.replace("tpl-tiny", "tpl-{{ var.domain }}-{{ var.site }}")),
    );
    let done = site.run(&["build", "tiny.toml", "--var", "size=big", "--var", "domian=x"]).await;
    insta::assert_snapshot!(refused(&site, &done, 3), @r#"
error: tiny.toml:8:8: the variable `site` is not defined (`template.name`)
    help: did you mean `size`?
error: tiny.toml:20:12: the variable `domain` has no value (`variables.domain`)
    help: give one with --var domain=…, or FORGE_VAR_DOMAIN in the environment
error: tiny.toml:24:12: the variable `size` must be an integer, and --var gives `big` (`variables.size`)
error: --var: the profile has no variable `domian`
    help: did you mean `domain`?
"#);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_does_not_exist_is_told_and_so_is_wrong_usage() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let done = site.run(&["build", "tinny.toml"]).await;
    insta::assert_snapshot!(refused(&site, &done, 3), @r#"
error: tinny.toml can't be read: No such file or directory (os error 2)
    help: did you mean `tiny.toml`?
"#);
    let done = site.run(&["build", "tiny.toml", "--config", "forg.toml"]).await;
    insta::assert_snapshot!(refused(&site, &done, 3), @r#"
error: forg.toml: can't be read: No such file or directory (os error 2)
"#);
    let done = site.run(&["build", "tiny.toml", "--target", "lba"]).await;
    insta::assert_snapshot!(refused(&site, &done, 3), @r#"
error: forge.toml has no target `lba`
    help: did you mean `lab`?
"#);
    let done = site.run(&["build"]).await;
    insta::assert_snapshot!(refused(&site, &done, 2), @r#"
error: the following required arguments were not provided:
  <PROFILE>...

Usage: forge build <PROFILE>...

For more information, try '--help'.
"#);
    let done = site.run(&["build", "tiny.toml", "--var", "novalue"]).await;
    insta::assert_snapshot!(refused(&site, &done, 3), @r#"
error: --var novalue: this is no NAME=VALUE
"#);
    site.close().await;
    Ok(())
}
