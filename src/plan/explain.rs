//! A plan in words, for `forge plan` and the evidence.

use std::fmt::Write as _;

use forge_machine::{Bios, Checksum, Finish, Medium, SourceSpec};

use crate::config::beside;
use crate::media::{shown, size};
use crate::remote::Via;

use super::{AfterInstall, BootStep, Delivery, Download, EchoWish, Outcome, Plan, Purpose, Sight, Wanted};

/// The plan as text for people: what will be done, in order, and why.
#[must_use]
pub fn explain(plan: &Plan) -> String {
    let mut out = String::new();
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            let _infallible = writeln!(out, "  {name:<10} {value}");
        }
    };
    row("profile", plan.profile.clone());
    row("target", format!("{} ({})", plan.target, plan.product));
    for note in &plan.notes {
        row("", note.lines().map(str::trim).collect::<Vec<_>>().join(" "));
    }
    row("source", source_in_words(plan));
    for (number, iso) in plan.machine.isos.iter().enumerate() {
        let slot = plan.machine.iso_slots.get(&number).map(|slot| format!(", on {slot}"));
        row("", format!("disc {}{}", medium(iso), slot.unwrap_or_default()));
    }
    if plan.after_install == Some(AfterInstall::Poweroff) {
        row("", "the installer switches the VM off; it is started again without its media".into());
    }
    for download in &plan.downloads {
        row("", fetches(download));
    }
    if let Some(kernel) = &plan.machine.kernel {
        let initrds: Vec<String> = kernel.initrds.iter().map(ToString::to_string).collect();
        let with = if initrds.is_empty() { String::new() } else { format!(" with {}", initrds.join(", ")) };
        row("", format!("starts the kernel {}{with}, without a boot loader", kernel.kernel));
        row("", plan.kernel_cmdline.as_ref().map(|text| format!("told: {text}")).unwrap_or_default());
    }
    if let Some(disc) = &plan.boot_disc {
        let with = if disc.initrds.is_empty() {
            String::new()
        } else {
            format!(" with {}", disc.initrds.join(", "))
        };
        row("", format!("a boot disc starts {} of the medium{with} by the medium's own loader", disc.kernel));
        row("", plan.kernel_cmdline.as_ref().map(|text| format!("told: {text}")).unwrap_or_default());
    }
    row("build VM", hardware(plan));
    row("seed", format!("{}: {}", plan.seed.delivery.name(), plan.seed.why));
    if matches!(
        plan.seed.delivery,
        Delivery::Smbios | Delivery::Kernel | Delivery::BootDisc | Delivery::Typed
    ) {
        let of = plan.seed.interface.as_ref().map(|name| format!("<address of {name}>"));
        let address = plan.seed.address.clone().or(of).unwrap_or_else(|| "<seed.address>".into());
        let to = match plan.seed.allowed_networks.join(", ") {
            none if none.is_empty() => none,
            networks => format!(", to {networks} alone"),
        };
        row("", format!("served on {} as http://{address}:<seed.port>/{to}", plan.seed.bind));
    }
    if !plan.seed.files.is_empty() {
        row("", format!("beside it {}", beside::in_words(&plan.seed.files)));
    }
    if let Some(disc) = &plan.seed.disc {
        let with = if plan.seed.delivery == Delivery::Disc { "with it, " } else { "" };
        row("", format!("a disc `{}`: {with}{}", plan.seed.disc_label(), beside::in_words(&disc.files)));
    }
    if let Some(floppy) = &plan.seed.floppy {
        let with = if plan.seed.delivery == Delivery::Floppy { "with it, " } else { "" };
        row(
            "",
            format!("a floppy `{}`: {with}{}", plan.seed.floppy_label(), beside::in_words(&floppy.files)),
        );
    }
    for (index, step) in plan.boot.iter().enumerate() {
        row(if index == 0 { "boot" } else { "" }, format!("{}. {}", index + 1, boot_step(step)));
    }
    let made = if plan.access.create { "made for this build, removed when sealing" } else { "of the source" };
    let ssh = &plan.access.ssh;
    let mut by = ssh.credentials.in_words();
    if plan.access.create || by.is_empty() {
        by.insert(0, "key made for this build".into());
    }
    let by = if plan.access.via.contains(&Via::Ssh) { format!(", {}", by.join(", ")) } else { String::new() };
    row("access", format!("{} as {} ({made}){by}", Via::in_words(&plan.access.via), plan.access.user));
    let bastions = ssh.bastions.iter().map(|hop| format!("{}@{}:{}", hop.user, hop.host, hop.port));
    let proxy = ssh.proxy.iter().map(|proxy| format!("the proxy {}:{}", proxy.host, proxy.port));
    let through: Vec<String> = proxy.chain(bastions).collect();
    if !through.is_empty() {
        row("", format!("through {}", through.join(", then ")));
    }
    for (index, step) in plan.provision.iter().enumerate() {
        row(if index == 0 { "provision" } else { "" }, format!("{}. {}", index + 1, step.in_words()));
    }
    let dry = if plan.seal_dry_run { "nothing; told is what would be done by " } else { "" };
    row("seal", format!("{dry}{}", plan.seal.join(", ")));
    match &plan.finish {
        _ if plan.purpose == Purpose::Test => row("makes", "nothing: the clone is removed".into()),
        Finish::Template { name, tags, .. } => {
            row("makes", format!("template {name}, tags {}", tags.join(", ")));
            if plan.gate {
                row("test", "a clone of it is tried; only a template that passes becomes the latest".into());
            }
        }
        Finish::Files { directory, name, formats, compress, replace, .. } => {
            let formats: Vec<&str> = formats.iter().map(|format| format.name()).collect();
            let how = match (compress, replace) {
                (false, false) => "",
                (true, false) => ", compressed",
                (false, true) => ", replacing what is there",
                (true, true) => ", compressed, replacing what is there",
            };
            row("makes", format!("{} as {}{how}", directory.join(name).display(), formats.join(", ")));
        }
    }
    let deadlines = &plan.deadlines;
    let build = deadlines.build.map_or_else(|| "none".to_owned(), |limit| format!("{} s", limit.as_secs()));
    row(
        "deadlines",
        format!(
            "boot {} s without a change on the screen, connect {} s, shutdown {} s, whole build {build}",
            deadlines.boot.as_secs(),
            deadlines.connect.as_secs(),
            deadlines.shutdown.as_secs(),
        ),
    );
    row("digest", plan.digest());
    out
}

/// What the build starts from, in words.
#[must_use]
pub fn source_in_words(plan: &Plan) -> String {
    match &plan.machine.source {
        SourceSpec::Clone { vm, name, full: true, .. } => format!("full clone of {name} ({vm})"),
        SourceSpec::Clone { vm, name, full: false, .. } => {
            format!("linked clone of {name} ({vm}): the template needs {name} as long as it exists")
        }
        SourceSpec::Image { image, .. } if matches!(plan.finish, Finish::Template { .. }) => {
            format!("import of {}", medium(image))
        }
        SourceSpec::Image { image, copy: false } => format!("overlay of {}", medium(image)),
        SourceSpec::Image { image, copy: true } => format!("copy of {}", medium(image)),
        SourceSpec::New => "a new VM".to_owned(),
    }
}

/// What is downloaded, how much it is, and what stands in for it.
fn fetches(download: &Download) -> String {
    let name = shown(&download.url);
    let size = download.size.map_or_else(|| "of unknown size".to_owned(), size);
    if download.here {
        return format!("in the cache: {name} ({size}), compared before it is used");
    }
    let mirrors: Vec<String> = download.mirrors.iter().map(|url| shown(url)).collect();
    let or = if mirrors.is_empty() { String::new() } else { format!("; else {}", mirrors.join(", ")) };
    format!("to be fetched: {name} ({size}){or}")
}

/// A medium and what proves it.
fn medium(medium: &Medium) -> String {
    match &medium.checksum {
        Checksum::None => medium.to_string(),
        checksum => format!("{medium} ({checksum})"),
    }
}

fn hardware(plan: &Plan) -> String {
    let machine = &plan.machine;
    let mut parts = vec![format!("on node {}", machine.node)];
    match machine.ids {
        Some((low, high)) if low == high => parts.push(format!("id {low}")),
        Some((low, high)) => parts.push(format!("id from {low}-{high}")),
        None => parts.push("next free id".into()),
    }
    parts.extend(machine.cores.map(|cores| format!("{cores} cores")));
    parts.extend(machine.memory_mib.map(|memory| format!("{memory} MiB")));
    let hardware = &machine.hardware;
    parts.extend(hardware.machine.clone());
    parts.extend(hardware.bios.map(|bios| match bios {
        Bios::Seabios => "BIOS".to_owned(),
        Bios::Ovmf if hardware.efi_disk.as_ref().is_some_and(|disk| disk.pre_enrolled_keys) => {
            "UEFI with Secure Boot".to_owned()
        }
        Bios::Ovmf => "UEFI".to_owned(),
    }));
    parts.extend(hardware.tpm.as_ref().map(|_| "TPM 2.0".to_owned()));
    let how = if machine.is_install() { "of" } else { "grown to" };
    for disk in &machine.disks {
        parts.extend(disk.size.map(|size| format!("{} {how} {} MiB", disk.slot, size >> 20)));
    }
    if !hardware.args.is_empty() {
        parts.push(format!("with {}", hardware.args.join(" ")));
    }
    for (index, network) in machine.networks.iter().enumerate() {
        let bridge = network.bridge.as_deref().unwrap_or("the source's bridge");
        parts.push(format!("net{index} {} on {bridge}", network.model));
    }
    if let Some(drive) = &machine.cloud_init {
        let how = if drive.inherited { "from the source" } else { "added" };
        parts.push(format!("cloud-init drive {} on {} ({how})", drive.slot, drive.storage));
    }
    parts.join(", ")
}

fn boot_step(step: &BootStep) -> String {
    match step {
        BootStep::WaitFor { sight, within_ms, or_after, still_ms } => {
            let then = if *or_after { "then go on with a warning" } else { "else fail" };
            let still = still_ms.map(|ms| format!(" and a screen still for {ms} ms")).unwrap_or_default();
            format!("wait for {}{still}, {} s at most, {then}", seen(sight), within_ms / 1000)
        }
        BootStep::Expect { outcomes, within_ms } => {
            let outcomes: Vec<String> = outcomes.iter().map(outcome).collect();
            format!("expect, {} s at most: {}", within_ms / 1000, outcomes.join("; or "))
        }
        BootStep::Until { sight, press, every_ms, within_ms } => {
            let within = within_ms / 1000;
            format!("press {press} every {every_ms} ms until {}, {within} s at most", seen(sight))
        }
        BootStep::WaitStill { quiet_ms, within_ms } => {
            format!("wait until the screen stands still for {quiet_ms} ms, {} s at most", within_ms / 1000)
        }
        BootStep::Wait { ms } => format!("wait {ms} ms"),
        BootStep::Keys { keys } => format!("press {keys}"),
        BootStep::Type { text, echo, enter, layout } => {
            let proof = match echo {
                EchoWish::Required => "and read it back",
                EchoWish::IfSeen => "and read it back if it appears",
                EchoWish::None => "blind",
            };
            let layout = if layout == "us" { String::new() } else { format!(" on a keyboard {layout:?}") };
            let enter = if *enter { ", then Enter" } else { "" };
            format!("type \u{201c}{text}\u{201d}{layout} {proof}{enter}")
        }
    }
}

fn seen(sight: &Sight) -> String {
    let what = match &sight.wanted {
        Wanted::Text(text) => format!("\u{201c}{text}\u{201d}"),
        Wanted::Regex(expression) => format!("/{expression}/"),
        Wanted::Serial(expression) => format!("/{expression}/ on the serial port"),
        Wanted::Needle(needle) => format!("the needle {} at {} %", needle.name, needle.percent),
    };
    let part = |name: &str, range: Option<(usize, usize)>| {
        range.map(|(first, last)| format!(" in {name} {first}-{last}")).unwrap_or_default()
    };
    format!("{what}{}{}", part("lines", sight.lines), part("columns", sight.columns))
}

fn outcome(outcome: &Outcome) -> String {
    let mut then: Vec<String> = outcome.steps.iter().map(boot_step).collect();
    if let Some(reason) = &outcome.fail {
        then.push(format!("fail: {reason}"));
    }
    if outcome.again {
        then.push("look again".into());
    }
    if then.is_empty() {
        then.push("go on".into());
    }
    format!("{} \u{2192} {}", seen(&outcome.sight), then.join(", "))
}
