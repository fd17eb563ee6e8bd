//! A look at this machine as a target, for `forge doctor`: programs, firmware, accelerator. Starts QEMU for its version
//! and the accelerator's probe only.

use forge_machine::Diagnosis;

use crate::accel::Accelerator;
use crate::args::Chipset;
use crate::bridge;
use crate::check::Host;
use crate::hypervisor::{Shared, version};
use crate::port::HeldPort;
use crate::process::find_program;

/// Looks at this machine.
pub(crate) async fn diagnose(shared: &Shared) -> Vec<Diagnosis> {
    let target = &shared.target;
    let mut found = Vec::new();
    let mut whole = true;
    for (program, package) in [(&target.binary, "qemu-system-x86"), (&target.image_tool, "qemu-utils")] {
        let check = program.display().to_string();
        found.push(match find_program(program) {
            Some(path) => Diagnosis::pass(check, path.display().to_string()),
            None => {
                whole = false;
                Diagnosis::fail(
                    check,
                    "it is not installed",
                    format!("install it (Debian: package {package})"),
                )
            }
        });
    }
    if whole {
        found.push(Diagnosis::pass("release", version(&target.binary).await));
        let verdict = shared.verdict().await;
        let words = format!("{}: {}", verdict.accelerator, verdict.reason);
        found.push(match (&verdict.doubt, verdict.accelerator) {
            (Some(doubt), _) => Diagnosis::warn(
                "accelerator",
                format!("{words}, though {doubt}"),
                "take `accel` out of the target: then it is what works",
            ),
            (None, Accelerator::Tcg) => Diagnosis::warn(
                "accelerator",
                words,
                "guests run without it, ten times slower; `/dev/kvm` has to be there and writable for this user",
            ),
            (None, _) => Diagnosis::pass("accelerator", words),
        });
        found.push(match shared.sandbox().await {
            Ok(()) => Diagnosis::pass("sandbox", "QEMU runs in its seccomp sandbox"),
            Err(words) => Diagnosis::warn(
                "sandbox",
                format!("this QEMU does not take it: {words}"),
                "a QEMU that is built with seccomp, as distributions build it",
            ),
        });
    }
    if let Some((first, last)) = target.ssh_ports {
        let check = "ports for SSH";
        found.push(match HeldPort::take(target.ssh_ports) {
            Ok(port) => Diagnosis::pass(check, format!("{} of {first} to {last} is free", port.number())),
            Err(error) => Diagnosis::fail(
                check,
                error.to_string(),
                "name a wider range, or leave it out: then any free port is taken",
            ),
        });
    }
    if let Some(name) = &target.bridge {
        found.push(match bridge::look(&target.name, name) {
            Ok(note) => Diagnosis::pass("bridge", note),
            Err(finding) => Diagnosis::fail("bridge", finding.message, finding.help),
        });
    }
    let host = Host::look();
    for (name, keys) in [("UEFI firmware", false), ("UEFI firmware with keys for Secure Boot", true)] {
        found.push(match host.firmwares.choose(keys, Chipset::Q35) {
            Some(_) => Diagnosis::pass(name, "it is there"),
            None => Diagnosis::warn(
                name,
                "it is not installed: profiles with bios = \"ovmf\" can't be built",
                "install it (Debian: package ovmf)",
            ),
        });
    }
    found.push(match &host.tpm {
        Some(path) => Diagnosis::pass("swtpm", path.display().to_string()),
        None => Diagnosis::warn(
            "swtpm",
            "it is not installed: profiles with a TPM can't be built",
            "install it (Debian: package swtpm)",
        ),
    });
    found
}
