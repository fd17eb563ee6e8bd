//! How a guest gets its seed: the rung of the ladder, and why.

use forge_http_seed::answers::{Answers, Kind};
use forge_http_seed::disc;
use forge_machine::facts::SourceFacts;
use forge_machine::{BootFile, Capabilities, Location, MachineSpec};

use super::late::LateName;
use super::make::{Input, located};
use super::{BootDisc, Delivery, SeedPlan};
use crate::config::Finding;
use crate::config::beside::{BesideFile, LARGEST, OwnMedium};
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
    findings.extend(unread_network(profile, delivery));
    let config = &input.target.seed;
    let served =
        matches!(delivery, Delivery::Smbios | Delivery::Kernel | Delivery::BootDisc | Delivery::Typed);
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
        disc: own_medium(Carrier::Disc, profile, input, delivery, findings),
        floppy: own_medium(Carrier::Floppy, profile, input, delivery, findings),
    }
}

impl SeedPlan {
    /// The label of the disc.
    #[must_use]
    pub fn disc_label(&self) -> &str {
        self.label(self.disc.as_ref(), Delivery::Disc)
    }

    /// The label of the floppy.
    #[must_use]
    pub fn floppy_label(&self) -> &str {
        self.label(self.floppy.as_ref(), Delivery::Floppy)
    }

    fn label<'a>(&self, own: Option<&'a OwnMedium>, holds_seed: Delivery) -> &'a str {
        let kind = self.answers.as_ref().map_or(Kind::Nocloud, |answers| answers.kind);
        let of_seed = kind.disc_label().unwrap_or(disc::CIDATA);
        let otherwise = if self.delivery == holds_seed { of_seed } else { OWN_LABEL };
        own.and_then(|own| own.label.as_deref()).unwrap_or(otherwise)
    }

    /// What is on the disc beside the seed.
    #[must_use]
    pub fn on_disc(&self) -> &[BesideFile] {
        self.disc.as_ref().map(|disc| disc.files.as_slice()).unwrap_or_default()
    }

    /// What is on the floppy beside the seed.
    #[must_use]
    pub fn on_floppy(&self) -> &[BesideFile] {
        self.floppy.as_ref().map(|floppy| floppy.files.as_slice()).unwrap_or_default()
    }
}

/// The label of a disc or floppy that holds no seed and was given none.
const OWN_LABEL: &str = "FORGE";

/// Whether the seed of an image with cloud-init has a network configuration.
fn has_network(profile: &Profile) -> bool {
    profile.seed.answers.is_none() && profile.seed.network_config.is_some()
}

/// The warning that an older cloud-init does not come to read the network configuration.
fn unread_network(profile: &Profile, delivery: Delivery) -> Option<Finding> {
    let told = match delivery {
        Delivery::Smbios => false,
        Delivery::Typed => super::boot::types(&steps(profile, delivery), LateName::SeedArguments),
        Delivery::Kernel | Delivery::BootDisc => tells(profile, &[LateName::SeedArguments]),
        Delivery::CloudInitDrive | Delivery::Disc | Delivery::Floppy | Delivery::None => return None,
    };
    (has_network(profile) && !told).then(|| {
        let message = format!(
            "by `{}` cloud-init reads this network configuration from its version 24.3 on: with an older one the guest keeps \
             what it has",
            delivery.name()
        );
        let help = "have the seed go by `disc`, or tell the kernel `{{ seed.arguments }}`, which have it too";
        located(profile, "seed.delivery", message).help(help).warning()
    })
}

/// What a medium of the profile's own is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Disc,
    Floppy,
}

impl Carrier {
    /// Its name, which is also its key in `[seed]`.
    fn name(self) -> &'static str {
        match self {
            Self::Disc => "disc",
            Self::Floppy => "floppy",
        }
    }

    /// Whether the target can give a VM one; else why not.
    fn possible(self, input: &Input<'_>) -> Result<(), String> {
        let (capabilities, facts) = (input.capabilities, input.facts);
        match self {
            Self::Disc if !capabilities.seed_disc => {
                Err(format!("{} can't be given a disc by this version", capabilities.name))
            }
            Self::Disc => facts.no_seed_disc.clone().map_or(Ok(()), Err),
            Self::Floppy if !capabilities.floppy => {
                Err(format!("{} gives a VM no floppy drive", capabilities.name))
            }
            Self::Floppy => Ok(()),
        }
    }
}

/// A medium of the profile's own, and what is wrong with it where the seed goes that way.
fn own_medium(
    carrier: Carrier,
    profile: &Profile,
    input: &Input<'_>,
    delivery: Delivery,
    findings: &mut Vec<Finding>,
) -> Option<OwnMedium> {
    let (seed, name) = (&profile.seed, carrier.name());
    let (own, holds_seed, most, instead) = match carrier {
        Carrier::Disc => (&seed.disc, Delivery::Disc, LARGEST, "beside the seed (`seed.files`)"),
        Carrier::Floppy => (&seed.floppy, Delivery::Floppy, disc::LARGEST_FLOPPY, "on a disc (`seed.disc`)"),
    };
    let own = own.clone()?;
    let mut wrong = |key: &str, message: String, help: &str| {
        findings.push(located(profile, &format!("seed.{name}{key}"), message).help(help));
    };
    if let Err(reason) = carrier.possible(input) {
        wrong("", format!("no {name} can be made: {reason}"), &format!("bring the files {instead}"));
    }
    if delivery != holds_seed {
        if own.files.is_empty() {
            wrong("", format!("there is nothing on this {name}"), "name something in `files` or `directory`");
        }
        return Some(own);
    }
    for (key, message, help) in own.unfit_for(seed, name) {
        wrong(key, message, help);
    }
    let bytes: u64 = own.files.iter().chain(&seed.files).map(BesideFile::bytes).sum();
    if bytes > most {
        let message = format!("the files for the seed's {name} come to {}", crate::media::size(bytes));
        wrong("", message, &format!("{} are the most", crate::media::size(most)));
    }
    Some(own)
}

/// The late values that lead a guest to its served seed.
const LEADS: [LateName; 2] = [LateName::SeedUrl, LateName::SeedArguments];

/// Whether the command line of the kernel that is started names the seed's address.
fn tells_seed(profile: &Profile) -> bool {
    tells(profile, &LEADS)
}

/// Whether the command line of the kernel that is started has one of these.
fn tells(profile: &Profile, late: &[LateName]) -> bool {
    profile.source.kernel.as_ref().is_some_and(|kernel| {
        kernel.cmdline.to_late(|_| String::new()).names().any(|name| late.contains(&name))
    })
}

fn types_seed(steps: &[BootStep]) -> bool {
    LEADS.iter().any(|name| super::boot::types(steps, *name))
}

/// What a boot disc starts; `None` where the profile's kernel is no file of its medium.
pub(super) fn boot_disc(profile: &Profile) -> Option<BootDisc> {
    let inside = |file: &BootFile| match file {
        BootFile::InIso(path) => Some(path.clone()),
        BootFile::Medium(_) => None,
    };
    let files = &profile.source.kernel.as_ref()?.files;
    let initrds = files.initrds.iter().map(inside).collect::<Option<_>>()?;
    Some(BootDisc { kernel: inside(&files.kernel)?, initrds })
}

/// Whether a boot disc can be made for the medium and started by the target; else why not.
fn boot_disc_possible(profile: &Profile, input: &Input<'_>) -> Result<(), String> {
    let name = input.capabilities.name;
    if !input.capabilities.boot_disc {
        return Err(format!("{name} needs none: it starts a kernel itself (`kernel`)"));
    }
    if boot_disc(profile).is_none() {
        return Err("`source.kernel` and `initrd` name no files of the medium (`{ iso = \"/path\" }`)".into());
    }
    if !tells_seed(profile) {
        return Err("no `source.cmdline` with `{{ seed.url }}`".into());
    }
    if !is_uefi(profile) {
        return Err(
            "what a medium starts by BIOS can't be moved to another disc: it takes `vm.bios = \"ovmf\"`"
                .into(),
        );
    }
    if let Some(Location::Volume(volume)) = profile.source.isos.first().map(|medium| &medium.location) {
        return Err(format!(
            "forge can't read {volume}, whose loader it needs: name the medium's file or URL"
        ));
    }
    Carrier::Disc.possible(input)
}

/// The boot steps of a build whose seed goes this way.
pub(super) fn steps(profile: &Profile, delivery: Delivery) -> Vec<BootStep> {
    let firmware = if is_uefi(profile) { "uefi" } else { "bios" };
    super::boot::taken(&profile.boot, firmware, delivery.name())
}

fn is_uefi(profile: &Profile) -> bool {
    let bios = profile.vm.proxmox.get("bios").map(String::as_str);
    bios == Some("ovmf") || profile.vm.state_disks.iter().any(|disk| disk.slot == "efidisk0")
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
                } else if profile.access.ssh.host_key_in_seed {
                    Err("the drive has no place for a host key (`access.host-key = \"seed\"`)".into())
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
            Delivery::BootDisc => boot_disc_possible(profile, input).map(|()| {
                "a boot disc has the medium's own loader start its kernel with the address of its answers: no typing"
            }),
            Delivery::Disc if profile.seed.answers.is_some() && profile.seed.kind.disc_label().is_none() => {
                Err("the installer looks for its answers on no disc".into())
            }
            Delivery::Disc if profile.seed.answers.as_ref().is_some_and(Answers::needs_kernel_arguments) => {
                Err("the installer's kernel must be told `fips=1`, which no disc does".into())
            }
            Delivery::Disc => {
                Carrier::Disc.possible(input).map(|()| "a disc holds the seed: no network and no typing")
            }
            Delivery::Floppy if !profile.seed.kind.reads_floppy() => {
                Err("nothing looks for this seed on a floppy".into())
            }
            Delivery::Floppy => {
                Carrier::Floppy.possible(input).map(|()| "a floppy holds the seed: no network and no typing")
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
        Delivery::BootDisc,
        Delivery::Disc,
        Delivery::Floppy,
        Delivery::Typed,
        Delivery::None,
    ];
    let named = |name: &String| all.into_iter().find(|rung| rung.name() == name);
    let chosen: Vec<Delivery> = if profile.seed.delivery.is_empty() {
        if tells_seed(profile) {
            vec![Delivery::Kernel, Delivery::BootDisc]
        } else if types_seed(&profile.boot) {
            vec![Delivery::Typed]
        } else if profile.seed.kind.reads_floppy() {
            vec![Delivery::Disc, Delivery::Floppy]
        } else if has_network(profile) {
            // A disc's network configuration is read by every cloud-init.
            vec![Delivery::CloudInitDrive, Delivery::Disc, Delivery::Smbios, Delivery::Typed]
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
