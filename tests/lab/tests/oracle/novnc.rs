//! noVNC, unmodified, in a real browser: it opens a guest's console as Proxmox's own page does and types at it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use forge_lab::browser::{Browser, LIMIT};
use forge_lab::{ImportVm, LabConfig, setup};

use super::lab_with;

/// A boot sector that writes `>` and then each key it gets to the screen and to the first serial port.
const ECHO: [u8; 30] = [
    0xb8, 0xe3, 0x00, // mov ax, 00e3h: serial port at 9600 8N1
    0x31, 0xd2, // xor dx, dx
    0xcd, 0x14, // int 14h
    0xb0, b'>', // mov al, '>'
    0x50, // show: push ax
    0xb4, 0x0e, // mov ah, 0eh: onto the screen
    0xbb, 0x07, 0x00, // mov bx, 7
    0xcd, 0x10, // int 10h
    0x58, // pop ax
    0xb4, 0x01, // mov ah, 1: to the serial port
    0x31, 0xd2, // xor dx, dx
    0xcd, 0x14, // int 14h
    0x31, 0xc0, // xor ax, ax: wait for a key
    0xcd, 0x16, // int 16h
    0xeb, 0xeb, // jmp show
];

/// A disk that starts with that sector.
pub fn echo_disk(folder: &Path) -> anyhow::Result<std::path::PathBuf> {
    let mut disk = vec![0; 1 << 20];
    disk[..ECHO.len()].copy_from_slice(&ECHO);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let path = folder.join("echo.raw");
    std::fs::write(&path, disk)?;
    Ok(path)
}

/// Copies noVNC's folder and the page beside it.
fn lay_out(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => lay_out(&entry.path(), &to.join(entry.file_name()))?,
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name()))?),
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn novnc_in_a_browser_types_at_a_guest() -> anyhow::Result<()> {
    let novnc = setup::node::novnc();
    if !novnc.join("core/rfb.js").is_file() || !Browser::is_there() {
        let text = "there is no chromium or no noVNC: cargo lab test installs them";
        ensure!(std::env::var_os("FORGE_LAB").is_none(), "{text}");
        println!("skipped: {text}");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (lab, client) = lab_with(LabConfig::default()).await?;
    lab.set_password("root@pam", "in the browser");
    lab.import_vm(ImportVm {
        vmid: 9300,
        name: "echo".to_owned(),
        disk: Some(echo_disk(folder.path())?),
        memory: 32,
        agent: false,
        ..ImportVm::default()
    })
    .await?;
    assert_eq!(client.done("POST", "/nodes/pve/qemu/9300/status/start", "").await?, "OK");
    let serial = async |wanted: &str| {
        let started = Instant::now();
        while started.elapsed() < LIMIT {
            if lab.serial_log(9300).ends_with(wanted) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the guest got {:?} instead of {wanted:?}", lab.serial_log(9300))
    };
    serial(">").await?;

    let pages = folder.path().join("pages");
    lay_out(&novnc, &pages)?;
    std::fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/strangers/novnc.html"),
        pages.join("console.html"),
    )?;
    let mut browser = Browser::start().await?;
    // On a real server noVNC's files lie beside the API: the page is of the same origin.
    browser.serve(&format!("{}/novnc/", lab.url()), &pages).await?;
    let query = "user=root@pam&password=in%20the%20browser&node=pve&vmid=9300";
    browser.open(&format!("{}/novnc/console.html?{query}", lab.url())).await?;
    browser.until("window.seen?.stage === 'connected' || window.seen?.error !== null", "window.seen").await?;
    browser.until("window.seen.error === null && window.seen.name === 'QEMU (echo)'", "window.seen").await?;
    // What the firmware and the sector wrote is seen in the page.
    browser.until("window.lit() > 50", "window.lit()").await?;
    let before = browser.value("window.lit()").await?.as_u64().unwrap_or(0);

    browser
        .until("document.activeElement?.tagName === 'CANVAS'", "document.activeElement?.outerHTML")
        .await?;
    let mut shown = ">".to_owned();
    for key in "noVNC types 42".chars() {
        browser.press(key).await?;
        shown.push(key);
        // The firmware of a slow guest keeps few keys: each is waited for.
        serial(&shown).await?;
    }
    browser.until(&format!("window.lit() > {before}"), "window.lit()").await?;

    let routes: Vec<(String, Option<u16>)> = lab
        .requests()
        .into_iter()
        .filter(|call| call.agent.starts_with("Mozilla") && call.route.is_some())
        .map(|call| (format!("{} {}", call.method, call.path), call.status))
        .collect();
    assert_eq!(
        routes,
        [
            ("POST /access/ticket".to_owned(), Some(200)),
            ("POST /nodes/pve/qemu/9300/vncproxy".to_owned(), Some(200)),
            ("GET /nodes/pve/qemu/9300/vncwebsocket".to_owned(), Some(101)),
        ]
    );
    // The console's task lasts as long as the page looks at it.
    assert_eq!(lab.running_tasks(), [("vncproxy".to_owned(), "9300".to_owned())]);
    browser.value("window.rfb.disconnect()").await?;
    let started = Instant::now();
    while !lab.running_tasks().is_empty() {
        ensure!(started.elapsed() < LIMIT, "the console's task does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    browser.close().await?;
    lab.stop().await;
    Ok(())
}
