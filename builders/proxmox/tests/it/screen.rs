//! Screen, keyboard and agent of a real QEMU. Its firmware finds nothing to boot, which is enough.

use forge_lab::LabConfig;
use forge_machine::{Hypervisor as _, KeyChord, PortError, Power};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{bench, bench_with, mark};

#[tokio::test]
async fn the_screen_speaks_rfb_and_keys_are_pressed() {
    if std::process::Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
        println!("skipped: no qemu-system-x86_64 here");
        return;
    }
    let bench = bench_with(LabConfig::default()).await;
    let at = bench.clone_vm(&mark(1)).await;
    let machine = bench.pve.machine(&at);
    let error = machine.display().await.expect_err("it does not run");
    assert!(error.to_string().contains("does not run"), "{error}");

    let task = machine.submit_start().await.expect("submitted");
    bench.pve.wait(&task).await.expect("started");
    let mut display = machine.display().await.expect("a display");
    assert_eq!(display.password.as_ref().map(String::len), Some(8));
    let mut banner = [0; 12];
    display.stream.read_exact(&mut banner).await.expect("a banner");
    assert_eq!(&banner, b"RFB 003.008\n");
    display.stream.write_all(&banner).await.expect("sent");
    let mut types = [0; 2];
    display.stream.read_exact(&mut types).await.expect("security types");
    assert_eq!(types, [1, 2], "one security type: VNC authentication");

    let chord = |keys: &[&str]| KeyChord(keys.iter().map(|key| (*key).to_owned()).collect());
    machine.press(&[chord(&["shift", "a"]), chord(&["ret"])]).await.expect("pressed");
    let error = machine.press(&[chord(&["nosuchkey"])]).await.expect_err("unknown");
    assert!(matches!(error, PortError::Failed { .. }), "{error:?}");

    let report = machine.addresses().await.expect("a silent agent is no error");
    assert!(!report.agent && report.candidates.is_empty(), "{report:?}");
    assert!(report.detail.contains("guest agent is not running"), "{}", report.detail);

    machine.power_off().await.expect("off");
    assert_eq!(machine.state().await.expect("asked").power, Power::Stopped);
    bench.lab.stop().await;
}

#[tokio::test]
async fn a_stopped_guest_has_no_addresses_and_says_why() {
    let bench = bench().await;
    let at = bench.clone_vm(&mark(2)).await;
    let report = bench.pve.machine(&at).addresses().await.expect("no error");
    assert!(!report.agent && report.detail.contains("is not running"), "{report:?}");
    bench.lab.stop().await;
}
