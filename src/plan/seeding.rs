//! How a guest gets its seed: the rung of the ladder, and why.

use forge_http_seed::answers::{Answers, Kind};
use forge_machine::facts::SourceFacts;
use forge_machine::{Capabilities, MachineSpec};

use super::late::LateName;
use super::make::{Input, located};
use super::{Delivery, SeedPlan};
use crate::config::Finding;
use crate::config::beside::{BesideFile, LARGEST, OwnDisc};
use crate::config::profile::{BootStep, Profile};

/// How the guest gets its seed, and what it is.
pub(super) fn seed(
    profile: &Profile,
    input: &Input<'_>,
    machine: &MachineSpec,
    source: &SourceFacts,
    findings: &mut Vec<Finding>,
) -> SeedPlan {
    let (delivery, why) = delivery(profile, input, machine, source, findings);
    let config = &input.target.seed;
    let served = matches!(delivery, Delivery::Smbios | Delivery::Kernel | Delivery::Typed);
    let types = types_seed(&steps(profile, delivery));
    if delivery == Delivery::Typed && !types {
        let message = "the seed is to be typed, and no boot step types `{{ seed.url }}`";
        findings.push(
            located(profile, "boot", message).help(
                "type it on the kernel's line: { type = ' \"ds=nocloud;s={{ seed.url }};dsmode=net\"' }",
            ),
        );
    }
    if !served && types {
        let message = format!(
            "a boot step types the seed's address, and nothing is served with the delivery `{}`",
            delivery.name()
        );
        findings.push(
            located(profile, "boot", message)
                .help("set `seed.delivery = [\"typed\"]`, or leave the boot step out"),
        );
    }
    let host = input.capabilities.host_address;
    let bind = match (config.address.as_ref().or(config.interface.as_ref()), host) {
        // Only guests of this machine ask.
        (None, Some(host)) => host.bind.to_string(),
        _ => config.bind.clone(),
    };
    SeedPlan {
        delivery,
        why,
        bind,
        ports: config.ports,
        allowed_networks: config.allowed_networks.clone(),
        address: config
            .address
            .clone()
            .or_else(|| host.filter(|_| config.interface.is_none()).map(|host| host.seen.to_string())),
        interface: config.interface.clone(),
        endpoint: input.facts.endpoint.clone(),
        hostname: profile.seed.hostname.clone(),
        user_data: profile.seed.user_data.clone(),
        network_config: profile.seed.network_config.clone(),
        answers: profile.seed.answers.clone(),
        ip_config: profile.seed.ip_config.clone().unwrap_or_else(|| "ip=dhcp".into()),
        files: profile.seed.files.clone(),
        disc: own_disc(profile, input, delivery, findings),
    }
}

/// The profile's own disc, and what is wrong with it where the seed goes that way.
fn own_disc(
    profile: &Profile,
    input: &Input<'_>,
    delivery: Delivery,
    findings: &mut Vec<Finding>,
) -> Option<OwnDisc> {
    let seed = &profile.seed;
    let disc = seed.disc.clone()?;
    let mut wrong = |key: &str, message: String, help: &str| {
        findings.push(located(profile, &format!("seed.disc{key}"), message).help(help));
    };
    if let Err(reason) = can_have_disc(input) {
        wrong("", format!("no disc can be made: {reason}"), "bring the files beside the seed (`seed.files`)");
    }
    if delivery != Delivery::Disc {
        if disc.files.is_empty() {
            wrong("", "there is nothing on this disc".into(), "name something in `files` or `directory`");
        }
        return Some(disc);
    }
    // Windows looks at every medium, whatever its label.
    let wanted = seed.kind.disc_label().filter(|_| seed.kind != Kind::Autounattend);
    if let (Some(label), Some(wanted)) = (&disc.label, wanted)
        && !label.eq_ignore_ascii_case(wanted)
    {
        let message =
            format!("the seed is on this disc, and its reader looks for one that is labelled `{wanted}`");
        wrong(".label", message, "leave `label` out, or have the seed go another way (`seed.delivery`)");
    }
    let answers = seed.answers.iter().flat_map(|answers| answers.templates.keys().map(String::as_str));
    let taken: Vec<&str> = seed.kind.templates().iter().map(|(name, _)| *name).chain(answers).collect();
    let beside = |name: &str| seed.files.iter().any(|file| file.name == name);
    for file in disc.files.iter().filter(|file| taken.contains(&file.name.as_str()) || beside(&file.name)) {
        wrong(
            "",
            format!("`{}` is a file of the seed already, which is on this disc", file.name),
            "name it otherwise",
        );
    }
    let bytes: u64 = disc.files.iter().chain(&seed.files).map(BesideFile::bytes).sum();
    if bytes > LARGEST {
        let message = format!("the files for the seed's disc come to {}", crate::media::size(bytes));
        wrong("", message, &format!("{} are the most", crate::media::size(LARGEST)));
    }
    Some(disc)
}

/// Whether the target can give a VM a disc; else why not.
fn can_have_disc(input: &Input<'_>) -> Result<(), String> {
    match &input.facts.no_seed_disc {
        _ if !input.capabilities.seed_disc => {
            Err(format!("{} can't be given a disc by this version", input.capabilities.name))
        }
        Some(reason) => Err(reason.clone()),
        None => Ok(()),
    }
}

/// The late values that lead a guest to its served seed.
const LEADS: [LateName; 2] = [LateName::SeedUrl, LateName::SeedArguments];

/// Whether the command line of the kernel that is started names the seed's address.
fn tells_seed(profile: &Profile) -> bool {
    profile.source.kernel.as_ref().is_some_and(|kernel| {
        kernel.cmdline.to_late(|_| String::new()).names().any(|name| LEADS.contains(&name))
    })
}

fn types_seed(steps: &[BootStep]) -> bool {
    LEADS.iter().any(|name| super::boot::types(steps, *name))
}

/// The boot steps of a build whose seed goes this way.
pub(super) fn steps(profile: &Profile, delivery: Delivery) -> Vec<BootStep> {
    let key = |name: &str| profile.vm.proxmox.get(name).map(String::as_str);
    let uefi =
        key("bios") == Some("ovmf") || profile.vm.state_disks.iter().any(|disk| disk.slot == "efidisk0");
    let firmware = if uefi { "uefi" } else { "bios" };
    super::boot::taken(&profile.boot, firmware, delivery.name())
}

/// Whether the build starts the profile's kernel by itself. With a medium at hand, a target that can't do that, or a seed
/// that goes another way, starts the medium.
pub(super) fn starts_kernel(profile: &Profile, capabilities: &Capabilities, delivery: Delivery) -> bool {
    profile.source.isos.is_empty()
        || (capabilities.kernel_boot && (delivery == Delivery::Kernel || !tells_seed(profile)))
}

/// The backend's warning that the token may not set the SMBIOS serial.
fn smbios_denied(findings: &[forge_machine::Finding]) -> Option<&forge_machine::Finding> {
    findings.iter().find(|found| !found.fatal && found.message.contains("VM.Config.HWType"))
}

/// The best rung that is allowed and possible, and why it is this one.
fn delivery(
    profile: &Profile,
    input: &Input<'_>,
    machine: &MachineSpec,
    source: &SourceFacts,
    findings: &mut Vec<Finding>,
) -> (Delivery, String) {
    let more_than_a_user = profile.seed.more_than_a_user;
    let possible = |rung: Delivery| -> Result<&'static str, String> {
        match rung {
            Delivery::CloudInitDrive => {
                if !input.capabilities.cloud_init_drive {
                    Err(format!("{} has no cloud-init drive", input.capabilities.name))
                } else if profile.seed.answers.is_some() {
                    Err("an installer does not read its answers from there".into())
                } else if machine.cloud_init.is_none() {
                    Err(format!("{} has no cloud-init drive, and the profile adds none", source.name))
                } else if !profile.seed.files.is_empty() {
                    Err("the drive carries a user and a key, and the profile has files beside them".into())
                } else if more_than_a_user {
                    Err("the drive carries a user and a key, and the profile gives more user-data".into())
                } else if !profile.access.create {
                    Err("the drive makes the user, and the profile has one already (`access.create = false`)"
                        .into())
                } else {
                    Ok("the VM has a cloud-init drive: no HTTP and no typing")
                }
            }
            Delivery::Smbios if profile.seed.answers.is_some() && profile.seed.kind != Kind::Autoinstall => {
                Err("an installer does not read its answers from there".into())
            }
            Delivery::Kernel if !input.capabilities.kernel_boot => {
                Err(format!("{} starts no kernel without a boot loader", input.capabilities.name))
            }
            Delivery::Kernel if tells_seed(profile) => {
                Ok("the kernel is started with the address of its answers: no typing")
            }
            Delivery::Kernel => Err("no `source.cmdline` with `{{ seed.url }}`".into()),
            Delivery::Smbios if input.capabilities.smbios_serial => match smbios_denied(&input.findings) {
                Some(denied) => Err(denied.message.clone()),
                None => Ok("the SMBIOS serial carries the NoCloud address: no typing"),
            },
            Delivery::Smbios => Err(format!("{} can't set the SMBIOS serial", input.capabilities.name)),
            Delivery::Disc if profile.seed.answers.is_some() && profile.seed.kind.disc_label().is_none() => {
                Err("the installer looks for its answers on no disc".into())
            }
            Delivery::Disc if profile.seed.answers.as_ref().is_some_and(Answers::needs_kernel_arguments) => {
                Err("the installer's kernel must be told `fips=1`, which no disc does".into())
            }
            Delivery::Disc => {
                can_have_disc(input).map(|()| "a disc holds the seed: no network and no typing")
            }
            Delivery::Typed if types_seed(&steps(profile, Delivery::Typed)) => {
                Ok("the boot steps type the NoCloud address")
            }
            Delivery::Typed => Err("no boot step types `{{ seed.url }}`".into()),
            Delivery::None if !profile.seed.files.is_empty() => {
                Err("nothing would carry the files of the profile (those of `seed.disc` are on a disc)"
                    .into())
            }
            Delivery::None => Ok("the source has its own user and key"),
        }
    };
    let all = [
        Delivery::CloudInitDrive,
        Delivery::Smbios,
        Delivery::Kernel,
        Delivery::Disc,
        Delivery::Typed,
        Delivery::None,
    ];
    let named = |name: &String| all.into_iter().find(|rung| rung.name() == name);
    let chosen: Vec<Delivery> = if profile.seed.delivery.is_empty() {
        if tells_seed(profile) {
            vec![Delivery::Kernel]
        } else if types_seed(&profile.boot) {
            vec![Delivery::Typed]
        } else {
            vec![Delivery::CloudInitDrive, Delivery::Smbios, Delivery::Disc, Delivery::Typed]
        }
    } else {
        profile.seed.delivery.iter().filter_map(named).collect()
    };
    let mut refused = Vec::new();
    for rung in &chosen {
        match possible(*rung) {
            Ok(why) if refused.is_empty() => return (*rung, why.to_owned()),
            Ok(why) => return (*rung, format!("{why} (not {})", refused.join("; not "))),
            Err(reason) => refused.push(format!("{}: {reason}", rung.name())),
        }
    }
    // A profile that insists on typing gets the more precise finding about its boot steps.
    if chosen == [Delivery::Typed] {
        return (Delivery::Typed, String::new());
    }
    let finding =
        located(profile, "seed.delivery", "the seed can't reach the guest in any way that is allowed");
    findings.push(finding.help(refused.join("; ")));
    (Delivery::None, String::new())
}
