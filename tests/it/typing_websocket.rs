//! Random kernel lines typed into GRUB's editor the way a build on Proxmox types them: over TLS with a pinned certificate,
//! the node's websocket, and a display with a password.

#[path = "../../builders/console/tests/real/grub_disk.rs"]
mod grub_disk;
#[path = "../../builders/console/tests/real/typing.rs"]
mod typing;

use std::path::Path;

use forge_console::Console;
use forge_lab::{ImportVm, LabConfig};
use forge_machine::{Hypervisor as _, VmRef};
use forge_proxmox::{ProxmoxConfig, ProxmoxHypervisor, Secret, TlsChoice};

use crate::support::lab_site::{BOOT_VM, LabSite, TOKEN};
use typing::{Busy, GRUB_MENU, Random, SHORT_MENU, proven, soak_menu};

/// A VM of the lab at this menu of GRUB, and its console, whose first connections are cut after so many bytes to the client; `None`, with the reason printed, where there are no such programs.
#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
async fn grub(menu: &str, cuts: &[u64]) -> anyhow::Result<Option<(LabSite, Console, tempfile::TempDir)>> {
    let here = |program: &str| std::process::Command::new(program).arg("--version").output().is_ok();
    let modules = Path::new("/usr/lib/grub/i386-pc/boot.img").exists();
    if !here("qemu-system-x86_64") || !here("grub-mkimage") || !modules {
        eprintln!("skipped: it needs qemu-system-x86_64, grub-mkimage and GRUB's modules for a BIOS");
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    let disk = grub_disk::grub_disk(folder.path(), menu)?;
    let lab = LabConfig { accel: grub_disk::TRANSLATION.into(), ..LabConfig::default() };
    let site = LabSite::with(lab, ImportVm { disk: Some(disk), ..ImportVm::default() }).await?;
    let target = ProxmoxHypervisor::connect(ProxmoxConfig {
        target: "lab".into(),
        url: site.lab.url(),
        more_urls: Vec::new(),
        proxy: forge_proxmox::ProxyChoice::None,
        token_id: TOKEN.into(),
        role: None,
        token_secret: Secret::new(site.secret.clone()),
        tls: TlsChoice::Fingerprint(site.lab.fingerprint().to_owned()),
        nodes: Vec::new(),
        disk_storage: None,
        iso_storage: None,
        bridge: None,
    })?;
    let machine = target.machine(&VmRef::new(BOOT_VM.to_string(), "pve"));
    let task = machine.submit_start().await?;
    target.wait(&task).await?;
    for (number, after_bytes) in (1..).zip(cuts.iter().copied()) {
        let lost = forge_lab::Fault::LoseWebsocket { after_bytes };
        site.lab.faults().on("GET", "/nodes/*/qemu/*/vncwebsocket").call(number).then(lost);
    }
    let console = Console::follow(machine).await?;
    // The disk's image is read for as long as the VM runs.
    Ok(Some((site, console, folder)))
}

#[tokio::test(flavor = "multi_thread")]
async fn random_kernel_lines_arrive_exactly_at_a_guest_over_the_websocket() -> anyhow::Result<()> {
    let Some((site, console, _folder)) = grub(SHORT_MENU, &[]).await? else { return Ok(()) };
    assert!(console.types_scancodes(), "QEMU takes scancodes through the websocket too");
    proven(&console, (25, 40), &mut Random(0xcafe)).await?;
    drop(console);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_typed_at_a_guest_arrives_although_its_websocket_is_lost_twice() -> anyhow::Result<()> {
    let Some((site, console, _folder)) = grub(GRUB_MENU, &[7_000, 7_000]).await? else { return Ok(()) };
    proven(&console, (1, 60), &mut Random(0xbeef)).await?;
    let asked = site.lab.requests().into_iter().filter(|call| call.path.ends_with("/vncwebsocket")).count();
    assert_eq!(asked, 3, "each loss was met");
    assert!(console.failure().is_none());
    drop(console);
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes hours: cargo lab soak typing --transport websocket"]
async fn soak_typing_over_the_websocket() -> anyhow::Result<()> {
    let _busy = Busy::start()?;
    let Some((site, console, _folder)) = grub(&soak_menu(), &[]).await? else { return Ok(()) };
    typing::measure(&console, "the lab's websocket").await?;
    drop(console);
    site.close().await;
    Ok(())
}
