//! VMs that start with UEFI: which files their flash is made of, and what becomes of their variables.

use std::path::Path;
use std::time::Duration;

use forge_machine::{Bios, EfiDisk, Hardware, Hypervisor as _, Power, TpmState};
use tokio::time::timeout;

use crate::firmware::Firmwares;
use crate::hypervisor::tests::{LONG, facts_without_source, rig};

#[tokio::test]
async fn a_uefi_vm_has_variables_of_its_own_and_a_tpm_that_ends_with_it() {
    for keys in [false, true] {
        let hardware = Hardware {
            bios: Some(Bios::Ovmf),
            efi_disk: Some(EfiDisk { pre_enrolled_keys: keys, storage: None }),
            tpm: Some(TpmState::default()),
            ..Hardware::default()
        };
        let Some(mut rig) = rig().await else { return };
        rig.spec.hardware = hardware;
        let missing = rig.hypervisor.check(&rig.spec, &facts_without_source());
        if !missing.is_empty() {
            println!("skipped: {missing:?}");
            return;
        }
        let (at, machine) = rig.started().await;
        assert_eq!(machine.state().await.expect("asked").power, Power::Running);
        let folder = rig.hypervisor.work_directory(&at);
        let firmware = rig.host().firmware(&rig.spec).expect("found").expect("UEFI");
        assert_eq!(firmware.secure, keys);
        let length = |path: &Path| std::fs::metadata(path).expect("there").len();
        assert_eq!(length(&folder.join("efivars.fd")), length(&firmware.variables));
        let here = |name: &str| {
            let entries = std::fs::read_dir("/proc").expect("Linux").flatten();
            let works = entries.filter(|entry| {
                std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == folder)
                    && std::fs::read_to_string(entry.path().join("comm"))
                        .is_ok_and(|comm| comm.trim() == name)
            });
            works.count()
        };
        assert_eq!(here("swtpm"), 1);
        machine.power_off().await.expect("stopped");
        let ends = async {
            while here("swtpm") > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LONG, ends).await.expect("it ends with QEMU");
        // It starts again with the variables and the TPM's state that it had.
        machine.submit_start().await.expect("started");
        machine.destroy().await.expect("removed");
        assert!(!folder.exists());
    }
}

/// Packer's `efi_firmware_code` and `efi_firmware_vars`: a firmware that no descriptor names.
#[tokio::test]
async fn a_firmware_that_the_profile_names_is_what_the_vm_starts_with() {
    let Some(mut rig) = rig().await else { return };
    let Some(found) = Firmwares::find().choose(false, crate::args::Chipset::Q35).cloned() else {
        println!("skipped: no UEFI firmware is installed");
        return;
    };
    // A name whose comma would end QEMU's option.
    let folder = tempfile::tempdir().expect("a folder");
    let (code, variables) = (folder.path().join("our,code.fd"), folder.path().join("our,vars.fd"));
    std::fs::copy(&found.code, &code).expect("copied");
    std::fs::copy(&found.variables, &variables).expect("copied");
    rig.spec.hardware.bios = Some(Bios::Ovmf);
    rig.spec.extra = [("efi-firmware-code", &code), ("efi-firmware-vars", &variables)]
        .map(|(key, path)| (key.to_owned(), path.display().to_string()))
        .into();
    assert_eq!(rig.hypervisor.check(&rig.spec, &facts_without_source()), []);
    let (at, machine) = rig.started().await;
    assert_eq!(machine.state().await.expect("asked").power, Power::Running);
    let work = rig.hypervisor.work_directory(&at);
    let same = |one: &Path, other: &Path| {
        std::fs::metadata(one).expect("there").len() == std::fs::metadata(other).expect("there").len()
    };
    assert!(same(&work.join("efivars.fd"), &variables), "the build has variables of its own");
    // QEMU holds the code open that was named.
    let pid = std::fs::read_to_string(work.join("qemu.pid")).expect("it runs");
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", pid.trim())).expect("it runs");
    assert!(line.contains("our,,code.fd") && !line.contains("our,,vars.fd"), "{line}");
    machine.destroy().await.expect("removed");
}
