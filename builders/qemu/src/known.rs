//! What a QEMU knows by name, as it tells itself: machines and how many CPUs they take, CPU models, options. It is asked only
//! where a profile names something that is not in each of them.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use forge_machine::{Finding, MachineSpec};
use serde::Deserialize;

use crate::args::{machine_of, processors_of};

/// How long QEMU may take to print a list.
const LIMIT: Duration = Duration::from_secs(5);
/// Machines that each QEMU has.
const EVERYWHERE: [&str; 3] = ["q35", "pc", "microvm"];
/// CPU models that each QEMU has.
const MODELS: [&str; 2] = ["host", "max"];
/// So many CPUs each machine takes (a PC of QEMU 2.5 takes 255).
const FEW: u32 = 64;
/// What asks a QEMU without a machine for those that it has.
const ASK_MACHINES: &[&str] =
    &["-M", "none", "-nodefaults", "-no-user-config", "-display", "none", "-S", "-qmp", "stdio"];
const MACHINES: &str =
    "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-machines\"}\n{\"execute\":\"quit\"}\n";

/// A machine, as `query-machines` has it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct KnownMachine {
    name: String,
    alias: Option<String>,
    cpu_max: u32,
}

/// What of a spec this QEMU may not have.
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
        && !crate::cpu::is_level(model)
        && listed(binary, "-cpu").is_some_and(|list| lacks(&list, model))
    {
        found.push(Finding::fatal(
            "vm.cpu",
            format!("this QEMU has no CPU model `{model}`"),
            format!(
                "take one of those that `{} -cpu help` lists, or one of Proxmox VE's x86-64 levels",
                name_of(binary)
            ),
        ));
    }
    found.extend(processors(spec, &machine, binary));
    found.extend(arguments(&spec.hardware.args, binary));
    found
}

/// More CPUs than a machine takes.
fn processors(spec: &MachineSpec, machine: &str, binary: &Path) -> Option<Finding> {
    let wanted = processors_of(spec);
    if wanted <= FEW {
        return None;
    }
    let answers = asked(binary, ASK_MACHINES, MACHINES)?;
    let machines = String::from_utf8_lossy(&answers.stdout).lines().find_map(|line| {
        let answer: serde_json::Value = serde_json::from_str(line).ok()?;
        let list = answer.get("return").filter(|list| list.is_array())?;
        Vec::<KnownMachine>::deserialize(list).ok()
    })?;
    let named = |known: &&KnownMachine| known.name == machine || known.alias.as_deref() == Some(machine);
    let most = machines.iter().find(named)?.cpu_max;
    (wanted > most).then(|| {
        let setting = if spec.cores.is_some() { "vm.cores" } else { "vm.sockets" };
        let message = format!("the machine `{machine}` of this QEMU takes {most} CPUs at most, not {wanted}");
        Finding::fatal(setting, message, "ask for less")
    })
}

/// An argument that is no option of this QEMU, or lacks what belongs to it. It looks at all of them before it does anything,
/// and `-version` before them is all that it does.
fn arguments(args: &[String], binary: &Path) -> Option<Finding> {
    if args.is_empty() {
        return None;
    }
    let line: Vec<&str> = std::iter::once("-version").chain(args.iter().map(String::as_str)).collect();
    let answer = asked(binary, &line, "")?;
    let said = String::from_utf8_lossy(&answer.stderr).into_owned();
    let found = said.lines().find_map(|line| {
        let (_, words) = line.split_once(": ")?;
        let at_fault = |end: &str| words.strip_suffix(end).map(str::to_owned);
        let unknown = at_fault(": invalid option").map(|option| (option, true));
        unknown.or_else(|| at_fault(": requires an argument").map(|option| (option, false)))
    });
    let (option, unknown) = found.filter(|_| !answer.status.success())?;
    let whole = format!("`{} -help` lists them all", name_of(binary));
    if !unknown {
        let message = format!("`{option}` lacks its argument");
        return Some(Finding::fatal("vm.args", message, format!("write it after a space; {whole}")));
    }
    let options = asked(binary, &["-help"], "").map(|help| options(&String::from_utf8_lossy(&help.stdout)));
    let near =
        options.unwrap_or_default().into_iter().map(|each| (strsim::jaro_winkler(&option, &each), each));
    let best = near.filter(|(near, _)| *near > 0.8).max_by(|a, b| a.0.total_cmp(&b.0));
    let help = match best {
        Some((_, name)) => format!("did you mean `{name}`? {whole}"),
        None => whole,
    };
    Some(Finding::fatal("vm.args", format!("this QEMU has no option `{option}`"), help))
}

/// The options in the lines of `-help`: `-boot [order=drives]…`, `-h or -help  …`, `-fda/-fdb file  …`.
fn options(help: &str) -> Vec<String> {
    let lines = help.lines().filter(|line| line.starts_with('-'));
    let words = lines.flat_map(|line| {
        let others = line.split(" or ").skip(1).filter_map(|rest| rest.split_whitespace().next());
        line.split_whitespace().take(1).flat_map(|first| first.split('/')).chain(others)
    });
    words.filter(|word| word.starts_with('-')).map(str::to_owned).collect()
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

/// What QEMU prints for `help` of an option; `None` when it does not: then nothing is refused for it.
fn listed(binary: &Path, option: &str) -> Option<String> {
    let output = asked(binary, &[option, "help"], "").filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What QEMU says to these arguments and this input; `None` when it does not end in time.
fn asked(binary: &Path, arguments: &[&str], input: &str) -> Option<Output> {
    let mut command = Command::new(binary);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    let pid = i32::try_from(child.id()).ok().map(nix::unistd::Pid::from_raw)?;
    // A few lines, which a pipe takes at once. One that does not read them says nothing either.
    if let Some(mut stdin) = child.stdin.take() {
        let _nobody_reads = stdin.write_all(input.as_bytes());
    }
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(child.wait_with_output()));
    match receive.recv_timeout(LIMIT) {
        Ok(output) => output.ok(),
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
        '-M none') cat >/dev/null; printf '{\"QMP\": {}}\\n{\"return\": {}}\\n{\"return\": [{\"name\": \"pc-q35-10.0\", \"alias\": \"q35\", \"cpu-max\": 288}]}\\n';;\n\
        '-help ') printf -- '-h or -help  display this\\n-device driver[,prop=value]\\n  adds a device\\n-fda/-fdb file  floppies\\n';;\n\
        '-version -devise') echo 'qemu: -devise: invalid option' >&2; exit 1;;\n\
        '-version -device') [ $# -gt 2 ] || { echo 'qemu: -device: requires an argument' >&2; exit 1; };;\n\
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
        let (binary, silent) = programs(folder.path());
        for (machine, cpu, setting, words) in [
            (None, None, "", ""),
            (Some("q35"), Some("host,-vmx"), "", ""),
            (Some("pc-q35-10.0"), Some("EPYC-v4,+aes"), "", ""),
            (None, Some("Nehalem"), "", ""),
            (Some("pc-q35-99.0"), None, "vm.machine", "`q35` is the newest that it has"),
            (Some("pc-i440fx-1.0"), None, "vm.machine", "`i440fx` is the newest"),
            (None, Some("x86-64-v2-AES"), "", ""),
            (None, Some("x86-64-v5"), "vm.cpu", "x86-64 levels"),
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

    /// Two programs: one that tells what it has, and one that says nothing to anything.
    fn programs(folder: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
        let (binary, silent) = (folder.join("qemu"), folder.join("silent"));
        for (path, text) in [(&binary, SCRIPT), (&silent, "#!/bin/sh\n")] {
            std::fs::write(path, text).expect("written");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(path, mode).expect("set");
        }
        (binary, silent)
    }

    #[test]
    fn arguments_and_cpus_that_this_qemu_does_not_take_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let (binary, silent) = programs(folder.path());
        let told = |args: &[&str], cores: u32| {
            let mut spec = spec(None, None);
            spec.hardware.args = args.iter().map(|arg| (*arg).to_owned()).collect();
            spec.cores = Some(cores);
            assert_eq!(findings(&spec, &silent), [], "one that tells nothing refuses nothing");
            let found = findings(&spec, &binary).into_iter();
            found.map(|each| (each.setting, format!("{}; {}", each.message, each.help))).collect::<Vec<_>>()
        };
        assert_eq!(told(&["-device", "virtio-rng-pci"], 288), []);
        for (args, cores, setting, words) in [
            (
                &["-devise", "x"][..],
                2,
                "vm.args",
                "this QEMU has no option `-devise`; did you mean `-device`? `qemu -help` lists them all",
            ),
            (
                &["-device"],
                2,
                "vm.args",
                "`-device` lacks its argument; write it after a space; `qemu -help` lists them all",
            ),
            (
                &[],
                289,
                "vm.cores",
                "the machine `q35` of this QEMU takes 288 CPUs at most, not 289; ask for less",
            ),
        ] {
            assert_eq!(told(args, cores), [(setting.to_owned(), words.to_owned())]);
        }
        let listed =
            options("-h or -help  display\n-fda/-fdb file  use\n  -not this\n-m [size=]megs or so\n");
        assert_eq!(listed, ["-h", "-help", "-fda", "-fdb", "-m"]);
    }
}
