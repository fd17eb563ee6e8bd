//! Machines and CPU models that a QEMU knows by name, as its own lists have them. It is asked only where a profile names
//! one that is not in each of them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use forge_machine::{Finding, MachineSpec};

use crate::args::machine_of;

/// How long QEMU may take to print a list.
const LIMIT: Duration = Duration::from_secs(5);
/// Machines that each QEMU has.
const EVERYWHERE: [&str; 3] = ["q35", "pc", "microvm"];
/// CPU models that each QEMU has.
const MODELS: [&str; 2] = ["host", "max"];

/// The machine and the CPU model of a spec that this QEMU may not have.
pub(crate) fn findings(spec: &MachineSpec, binary: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    let machine = machine_of(spec);
    // What is no machine of forge's is told already.
    if crate::args::Chipset::of(&machine).is_some()
        && !EVERYWHERE.contains(&machine.as_str())
        && listed(binary, "-machine").is_some_and(|list| lacks(&list, &machine))
    {
        let newest = if machine.contains("q35") { "q35" } else { "i440fx" };
        found.push(Finding::fatal(
            "vm.machine",
            format!("this QEMU has no machine `{machine}`"),
            format!(
                "`{newest}` is the newest that it has; `{} -machine help` lists them all",
                name_of(binary)
            ),
        ));
    }
    let model = spec.cpu.as_deref().and_then(|cpu| cpu.split(',').next()).unwrap_or_default();
    if !model.is_empty()
        && !MODELS.contains(&model)
        && listed(binary, "-cpu").is_some_and(|list| lacks(&list, model))
    {
        let own = if model.starts_with("x86-64-v") {
            "it is one of Proxmox VE's own: leave `vm.cpu` out for all that this machine offers, or take"
        } else {
            "take"
        };
        found.push(Finding::fatal(
            "vm.cpu",
            format!("this QEMU has no CPU model `{model}`"),
            format!("{own} one of those that `{} -cpu help` lists", name_of(binary)),
        ));
    }
    found
}

fn name_of(binary: &Path) -> String {
    binary.file_name().unwrap_or(binary.as_os_str()).to_string_lossy().into_owned()
}

/// Whether a name is in none of the lines of a list. One without a line is no list.
fn lacks(list: &str, name: &str) -> bool {
    // `pc-q35-9.2  Standard PC …`, `EPYC  (alias …)`, and on older ones `x86 EPYC  …`.
    let mut names = list.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("x86") => words.next(),
            first => first,
        }
    });
    list.lines().count() > 1 && !names.any(|known| known == name)
}

/// What QEMU prints for `help` of an option; `None` when it does not in time: then nothing is refused for it.
fn listed(binary: &Path, option: &'static str) -> Option<String> {
    let mut command = Command::new(binary);
    command.args([option, "help"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let child = command.spawn().ok()?;
    let pid = i32::try_from(child.id()).ok().map(nix::unistd::Pid::from_raw)?;
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(child.wait_with_output()));
    match receive.recv_timeout(LIMIT) {
        Ok(Ok(output)) if output.status.success() => {
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(_failed) => None,
        Err(_elapsed) => {
            let _gone_already = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use forge_machine::{Hardware, SourceSpec};

    use super::*;

    const SCRIPT: &str = "#!/bin/sh\ncase \"$1 $2\" in\n\
        '-machine help') printf 'Supported machines are:\\npc-q35-10.0  Standard PC (Q35)\\nq35  alias\\n';;\n\
        '-cpu help') printf 'Available CPUs:\\nx86 EPYC-v4  AMD\\n  Nehalem  (alias)\\n\\nRecognized CPUID flags:\\n  aes\\n';;\n\
        esac\n";

    fn spec(machine: Option<&str>, cpu: Option<&str>) -> MachineSpec {
        MachineSpec {
            hardware: Hardware { machine: machine.map(str::to_owned), ..Hardware::default() },
            cpu: cpu.map(str::to_owned),
            ..MachineSpec::new(SourceSpec::New, "localhost")
        }
    }

    #[test]
    fn a_machine_or_cpu_model_that_this_qemu_lacks_is_told_and_one_that_it_has_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (binary, silent) = (folder.path().join("qemu"), folder.path().join("silent"));
        for (path, text) in [(&binary, SCRIPT), (&silent, "#!/bin/sh\n")] {
            std::fs::write(path, text).expect("written");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(path, mode).expect("set");
        }
        for (machine, cpu, setting, words) in [
            (None, None, "", ""),
            (Some("q35"), Some("host,-vmx"), "", ""),
            (Some("pc-q35-10.0"), Some("EPYC-v4,+aes"), "", ""),
            (None, Some("Nehalem"), "", ""),
            (Some("pc-q35-99.0"), None, "vm.machine", "`q35` is the newest that it has"),
            (Some("pc-i440fx-1.0"), None, "vm.machine", "`i440fx` is the newest"),
            (None, Some("x86-64-v2-AES"), "vm.cpu", "one of Proxmox VE's own"),
            (None, Some("Nehalem2,+aes"), "vm.cpu", "`qemu -cpu help` lists"),
        ] {
            let found = findings(&spec(machine, cpu), &binary);
            let told: Vec<(&str, bool)> =
                found.iter().map(|finding| (finding.setting.as_str(), finding.fatal)).collect();
            let expected = if setting.is_empty() { Vec::new() } else { vec![(setting, true)] };
            assert_eq!(told, expected, "{machine:?} {cpu:?}");
            assert!(found.iter().all(|finding| finding.help.contains(words)), "{found:?}");
            assert_eq!(findings(&spec(machine, cpu), &silent), [], "one that tells nothing refuses nothing");
        }
    }
}
