//! What a plan finds before the first effect: values that Proxmox would refuse, pools that are not there, and machines that
//! no node can hold.

use forge_lab::{Fault, ImportVm, LEAST_PRIVILEGES_PVE9, LabConfig, StorageConfig};

use crate::support::lab_site::{Done, LabSite, PROFILE, TOKEN};

/// A site in name only whose token may look at the node's figures, in a lab of any kind.
async fn site(config: LabConfig) -> anyhow::Result<LabSite> {
    let site = LabSite::with(LabConfig { run_guests: false, ..config }, ImportVm::default()).await?;
    site.lab.set_token_access(TOKEN, &[("/", &[LEAST_PRIVILEGES_PVE9, &["Sys.Audit"]].concat())]);
    Ok(site)
}

/// Plans a profile with this text before its deadlines.
async fn plan(site: &LabSite, vm: &str) -> Done {
    site.write("tiny.toml", &PROFILE.replace("[deadlines]", &format!("{vm}\n\n[deadlines]")));
    site.run(&["plan", "tiny.toml"]).await
}

/// Asserts that these lines are told, that the plan ended so, and that nothing was changed.
fn told(site: &LabSite, done: &Done, code: i32, lines: &[&str]) {
    assert_eq!(done.code, Some(code), "{}", done.stderr);
    for line in lines {
        assert!(done.stderr.contains(line), "{line}:\n{}", done.stderr);
    }
    assert!(site.lab.requests().iter().all(|request| request.method == "GET"), "it only looked");
    site.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_inside_a_value_is_told_with_its_line_and_with_what_is_right() -> anyhow::Result<()> {
    let site = site(LabConfig::default()).await?;
    let vm = r#"[vm]
machine = "nonsense"
boot-order = "scsi0;cd0"
hotplug = "disk,ram"
pci-devices = ["0000-01", { host = "01:00", pci = true }]
vga = { type = "std", memori = 16 }
cpu = "host,flags=+avx,hide=1"
disks = [{ slot = "scsi0", serial = "a b", options = { wwn = "5000" } }]

[vm.proxmox]
net5 = "virtio,brige=vmbr0"
net40 = "virtio,bridge=vmbr0"
startup = "first"
rng0 = "/dev/urandom,source=/dev/random""#;
    let done = plan(&site, vm).await;
    let words = [
        "error: tiny.toml:14:11: Proxmox VE 9.2 takes no `nonsense` for `type` of `machine` (`vm.machine`)\n    \
         help: write q35, pc, or a version of one as pc-q35-9.2 or pc-i440fx-9.2+pve1",
        "error: tiny.toml:15:14: Proxmox VE 9.2 takes no `cd0` for `order` of `boot` (`vm.boot-order`)\n    \
         help: write a device as scsi0, ide2 or net0",
        "error: tiny.toml:16:11: Proxmox VE 9.2 takes no `ram` for `hotplug` (`vm.hotplug`)",
        "takes no `0000-01` for `host` of `hostpci0`",
        "Proxmox VE 9.2 knows no `pci` in `hostpci1`",
        "help: did you mean `pcie`?",
        "Proxmox VE 9.2 knows no `memori` in `vga` (`vm.vga`)\n    help: did you mean `memory`?",
        "error: tiny.toml:19:7: Proxmox VE 9.2 knows no `hide` in `cpu` (`vm.cpu`)",
        "tiny.toml:19:7: warning: Proxmox VE 9.2 takes no `+avx` for `flags` of `cpu` (`vm.cpu`)",
        "takes no `a b` for `serial` of `scsi0` (`vm.disks[0].serial`)",
        "takes no `5000` for `wwn` of `scsi0` (`vm.disks[0].wwn`)\n    help: write a number as 0x5000c50015ea71aa",
        "error: tiny.toml:23:8: Proxmox VE 9.2 knows no `brige` in `net5` (`vm.proxmox.net5`)\n    \
         help: did you mean `bridge`?",
        "error: tiny.toml:24:9: Proxmox VE 9.2 knows no key `net40` (`vm.proxmox.net40`)\n    \
         help: `net31` is the last of them",
        "error: tiny.toml:25:11: `order` of `startup` is an integer, not `first` (`vm.proxmox.startup`)",
        "`source` is twice in `rng0`, the second time as `/dev/random` (`vm.proxmox.rng0`)",
    ];
    told(&site, &done, 3, &words);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_release_takes_is_told_by_validate_which_asks_nobody() -> anyhow::Result<()> {
    let site = site(LabConfig::default()).await?;
    let vm = r#"[vm]
vga = { type = "std", memory = 1 }
machine = "nonsense"
hotplug = "disk"

[vm.proxmox]
net5 = "virtio,brige=vmbr0"
allow-ksm = 0"#;
    let name =
        "error: tiny.toml:8:8: the template would bear the name of its source, `boot-vm` (`template.name`)";
    let wrong =
        PROFILE.replace("tpl-tiny", "boot-vm").replace("[deadlines]", &format!("{vm}\n\n[deadlines]"));
    site.write("tiny.toml", &wrong);
    for with_target in [true, false] {
        if !with_target {
            std::fs::remove_file(site.path().join("forge.toml"))?;
        }
        let done = site.run(&["validate", "tiny.toml"]).await;
        assert_eq!(done.code, Some(3), "{}", done.stderr);
        for line in [
            name,
            "error: tiny.toml:14:1: `memory` of `vga` is 4 at least, not 1 (`vm.vga`)",
            // A release that is yet to come may know these.
            "tiny.toml:15:11: warning: Proxmox VE 9.2 takes no `nonsense` for `type` of `machine` (`vm.machine`)",
            "tiny.toml:19:8: warning: Proxmox VE 9.2 knows no `brige` in `net5` (`vm.proxmox.net5`)",
        ] {
            assert!(done.stderr.contains(line), "{line}:\n{}", done.stderr);
        }
        assert!(!done.stderr.contains("allow-ksm"), "9.2 takes it: {}", done.stderr);
    }
    assert_eq!(site.lab.requests().len(), 0, "nobody is asked");
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_not_there_is_told_whoever_asks_and_one_that_goes_later_is_no_missing_privilege()
-> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let vm = "[vm]\npool = \"bulids\"";
    let words = "error: tiny.toml:14:8: there is no pool `bulids` (`vm.pool`)\n    help: ";
    let unseen = format!("{words}as root on a node: pveum pool add bulids; or leave the pool out");
    told(&site, &plan(&site, vm).await, 3, &[&unseen]);

    site.lab.add_pool("builds");
    site.lab.set_token_access(TOKEN, &[("/", &[LEAST_PRIVILEGES_PVE9, &["Pool.Audit"]].concat())]);
    let seen = format!("{words}did you mean `builds`? there are these pools: builds");
    told(&site, &plan(&site, vm).await, 3, &[&seen]);

    // The one of the target is told by the target's setting.
    site.write("forge.toml", &format!("{}pool = \"other\"\n", site.forge_toml()));
    told(&site, &plan(&site, "").await, 3, &["there is no pool `other` (`targets.lab.pool`)"]);
    site.write("forge.toml", &site.forge_toml());

    // It is there, and a token that may not look into pools builds in it.
    site.lab.set_token_access(TOKEN, &[("/", LEAST_PRIVILEGES_PVE9)]);
    told(&site, &plan(&site, "[vm]\npool = \"builds\"").await, 0, &[]);

    let reason = "Permission check failed (pool 'builds' does not exist)".to_owned();
    site.lab.faults().on("POST", "/nodes/*/qemu/*/clone").then(Fault::Refuse { status: 403, reason });
    let done = site.run(&["build", "tiny.toml"]).await;
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("pool 'builds' does not exist"), "{}", done.stderr);
    assert!(!done.stderr.contains("missing privilege"), "no privilege is the matter: {}", done.stderr);
    site.assert_nothing_left();
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_no_node_can_hold_is_refused_and_a_disk_that_only_may_grow_so_far_is_told()
-> anyhow::Result<()> {
    let storage = |name: &str, kind: &str| StorageConfig {
        kind: Some(kind.to_owned()),
        ..StorageConfig::everything(name).with_size(64 << 30)
    };
    let storages =
        vec![StorageConfig::everything("local"), storage("thin", "lvmthin"), storage("vg0", "lvm")];
    let site = site(LabConfig { storages, ..LabConfig::default() }).await?;
    let vm = |storage: &str| {
        format!(
            "[vm]\nmemory = \"1TiB\"\ncores = 6\nsockets = 2\n\
             disks = [{{ slot = \"scsi1\", size = \"200GiB\", storage = \"{storage}\" }}]"
        )
    };
    let common = [
        "error: tiny.toml:14:10: 1024 GiB of memory are more than node pve has at all, which is 16 GiB (`vm.memory`)\n    \
         help: ask for less",
        "error: tiny.toml:15:9: 2 × 6 = 12 CPUs are more than node pve has, which is 4, and Proxmox VE starts no such VM \
         (`vm.cores`)",
    ];
    let refused = "error: tiny.toml:17:35: scsi1 needs 200 GiB, and storage `vg0` (lvm) has 64 GiB free \
                   (`vm.disks[0].size`)";
    told(&site, &plan(&site, &vm("vg0")).await, 3, &[&common[..], &[refused]].concat());
    let doubted = "tiny.toml:17:35: warning: scsi1 may grow to 200 GiB, and storage `thin` (lvmthin) has 64 GiB free \
                   (`vm.disks[0].size`)";
    told(&site, &plan(&site, &vm("thin")).await, 3, &[&common[..], &[doubted]].concat());

    // What only is much goes through, with a word about the disk.
    let most = vm("thin").replace("1TiB", "16GiB").replace("cores = 6", "cores = 2");
    told(&site, &plan(&site, &most).await, 0, &[doubted]);
    // A token that may not see the node's figures refuses nothing for them.
    site.lab.set_token_access(TOKEN, &[("/", LEAST_PRIVILEGES_PVE9)]);
    let done = plan(&site, &vm("thin")).await;
    told(&site, &done, 0, &[doubted]);
    assert!(!done.stderr.contains("more than node"), "{}", done.stderr);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_does_not_take_the_name_by_which_its_source_is_asked_for() -> anyhow::Result<()> {
    let site = LabSite::in_name_only().await?;
    let named = |source: &str| {
        let same = PROFILE.replace("tpl-tiny", "boot-vm").replace("clone = \"boot-vm\"", source);
        site.write("tiny.toml", &same);
    };
    named("clone = \"boot-vm\"");
    let done = site.run(&["build", "tiny.toml"]).await;
    let refused =
        "error: tiny.toml:8:8: the template would bear the name of its source, `boot-vm` (`template.name`)";
    told(&site, &done, 3, &[refused, "name the source by its VMID"]);

    named("clone = { vmid = 9000 }");
    let done = site.run(&["plan", "tiny.toml"]).await;
    let doubted = "tiny.toml:8:8: warning: VM 9000 on pve is called `boot-vm` too (`template.name`)";
    told(&site, &done, 0, &[doubted]);
    site.close().await;
    Ok(())
}
