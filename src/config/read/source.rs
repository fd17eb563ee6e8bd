//! `[source]`.

use forge_machine::{BootFile, Checksum, CloneSelector, IsoDrives, KernelSpec, Location, Medium};

use super::vm::is_cd_slot;
use super::{Load, beside};
use crate::config::place::{Node, Place};
use crate::config::profile::{AfterInstall, Kernel, Source};
use crate::config::reader::Reader;
use crate::config::template::{Scope, Template};

const SUMS: &str = "checksum = \"sha256:…\", or \"file:https://…/SHA256SUMS\": the publisher's own sums";

/// What a table of a medium may say besides.
enum Also<'a> {
    Nothing,
    /// Whether it is copied.
    Copy(&'a mut bool),
    /// The slot of its drive.
    Slot(&'a mut Option<String>),
}

impl Load<'_> {
    pub(super) fn source(&mut self, root: &mut Reader<'_>) -> Source {
        let mut source = Source::default();
        let help =
            "write `clone = \"boot-vm\"` (Proxmox), `image = \"disk.qcow2\"` (QEMU) or `iso = { … }` in it";
        if root.any("source").is_none() {
            self.findings.push(root.finding("source", "`[source]` is missing").help(help));
        }
        let Some(mut reader) = root.table("source", &mut self.findings) else { return source };
        let before = self.findings.len();
        source.clone = match reader.any("clone").map(|spot| &spot.node) {
            Some(Node::Table(_)) => self.clone_by_table(&mut reader),
            Some(_) => self.filled(&mut reader, "clone").map(CloneSelector::Name),
            None => None,
        };
        source.full = reader.flag("full", &mut self.findings).unwrap_or(true);
        source.image = self.medium(&mut reader, "image", Also::Copy(&mut source.copy));
        let mut slots = vec![None];
        source.isos.extend(self.medium(&mut reader, "iso", Also::Slot(&mut slots[0])));
        slots.truncate(source.isos.len());
        let further = self.media(&mut reader, "additional-isos", Some(&mut slots));
        let nothing = source.isos.is_empty() && source.clone.is_none() && source.image.is_none();
        if nothing && !further.is_empty() && !self.base {
            let finding =
                reader.finding("additional-isos", "there is no `source.iso` that they are added to");
            self.findings.push(finding.help("the medium to install from is `iso`"));
        }
        source.isos.extend(further);
        for (number, slot) in slots.into_iter().enumerate() {
            let Some(slot) = slot else { continue };
            if source.iso_slots.values().any(|other| *other == slot) {
                let finding = reader.finding("additional-isos", format!("the slot `{slot}` is named twice"));
                self.findings.push(finding.help("one drive holds one medium"));
            }
            source.iso_slots.insert(number, slot);
        }
        let words = IsoDrives::NAMES;
        let after = reader.word("iso-drives", &words, &mut self.findings);
        source.iso_drives = after.as_deref().and_then(IsoDrives::from_name).unwrap_or_default();
        let words = AfterInstall::NAMES;
        let after = reader.word("after-install", &words, &mut self.findings);
        source.after_install = after.as_deref().and_then(AfterInstall::from_name);
        source.kernel = self.kernel(&mut reader, self.base || !source.isos.is_empty());
        if source.isos.is_empty() && source.kernel.is_none() && !self.base {
            for key in ["iso-drives", "after-install"] {
                if reader.any(key).is_some() {
                    let finding = reader.finding(key, format!("`source.{key}` is for a `source.iso`"));
                    self.findings.push(finding.help("name the medium, or leave this out"));
                }
            }
        }
        reader.done(&mut self.findings);
        source.mirrors = std::mem::take(&mut self.mirrors);
        let none = source.clone.is_none()
            && source.image.is_none()
            && source.isos.is_empty()
            && source.kernel.is_none();
        if none && self.findings.len() == before && !self.base {
            self.findings.push(root.finding("source", "`[source]` names nothing to start from").help(help));
        }
        source
    }

    fn clone_by_table(&mut self, reader: &mut Reader<'_>) -> Option<CloneSelector> {
        let mut inner = reader.table("clone", &mut self.findings)?;
        let before = self.findings.len();
        let vmid = inner.integer("vmid", 100, 999_999_999, &mut self.findings);
        let tags = inner.texts("tags", &mut self.findings).filter(|tags| !tags.is_empty());
        inner.done(&mut self.findings);
        match (vmid, tags) {
            (Some(vmid), None) => Some(CloneSelector::Vmid(vmid)),
            (None, Some(tags)) => Some(CloneSelector::Tags(tags)),
            _ if self.findings.len() > before => None,
            _ => {
                let finding = reader.finding("clone", "`source.clone` needs one of `vmid` and `tags`");
                self.findings.push(finding.help("or write the name: clone = \"boot-vm\""));
                None
            }
        }
    }

    /// A kernel to start with, its initrds and its command line.
    fn kernel(&mut self, reader: &mut Reader<'_>, iso: bool) -> Option<Kernel> {
        let mut initrds = Vec::new();
        match reader.any("initrd").map(|spot| &spot.node) {
            Some(Node::List(_)) => {
                initrds.extend(self.media(reader, "initrd", None).into_iter().map(BootFile::Medium));
            }
            _ => initrds.extend(self.boot_file(reader, "initrd", iso)),
        }
        let mut is_told_clock = false;
        let cmdline = match reader.raw_text("cmdline", &mut self.findings) {
            None => Template::default(),
            Some(text) => {
                is_told_clock = text.contains("tsc_early_khz=");
                let place = reader.place_of("cmdline").clone();
                self.templated(&text, Scope::Late, &reader.name("cmdline"), &place)
            }
        };
        if reader.any("kernel").is_none() && self.base {
            return None;
        }
        if reader.any("kernel").is_none() {
            for key in ["initrd", "cmdline"] {
                if reader.any(key).is_some() {
                    let finding = reader.finding(key, format!("`source.{key}` is for a `source.kernel`"));
                    self.findings.push(finding.help("kernel = { iso = \"/path/in/the/medium\" }, or a file"));
                }
            }
            return None;
        }
        let kernel = self.boot_file(reader, "kernel", iso)?;
        Some(Kernel { files: KernelSpec { kernel, initrds, is_told_clock }, cmdline })
    }

    /// A medium, or `{ iso = "/path" }`: a file inside the medium to install from.
    fn boot_file(&mut self, reader: &mut Reader<'_>, key: &'static str, iso: bool) -> Option<BootFile> {
        let inside = match reader.any(key).map(|spot| &spot.node) {
            Some(Node::Table(table)) => table.get("iso").is_some(),
            _ => false,
        };
        if !inside {
            return self.medium(reader, key, Also::Nothing).map(BootFile::Medium);
        }
        if !iso {
            let finding =
                reader.finding(key, format!("`source.{key}` is inside a medium, and there is none"));
            self.findings
                .push(finding.help("name the medium: iso = { url = \"https://…\", checksum = \"…\" }"));
        }
        let mut inner = reader.table(key, &mut self.findings)?;
        let path = self.filled(&mut inner, "iso");
        inner.done(&mut self.findings);
        path.map(BootFile::InIso)
    }

    /// An array of media; the slots of their drives, where they may have some, go to `slots`.
    fn media(
        &mut self,
        reader: &mut Reader<'_>,
        key: &'static str,
        mut slots: Option<&mut Vec<Option<String>>>,
    ) -> Vec<Medium> {
        let Some(spot) = reader.any(key) else { return Vec::new() };
        let Node::List(items) = &spot.node else {
            let message = format!("expected an array of media, found {}", spot.node.kind());
            let help = format!("{key} = [\"drivers.iso\", {{ url = \"https://…\", checksum = \"…\" }}]");
            self.findings.push(reader.finding(key, message).help(help));
            return Vec::new();
        };
        let mut media = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let setting = format!("{}[{index}]", reader.name(key));
            let (before, mut slot) = (media.len(), None);
            match &item.node {
                Node::Text(text) => {
                    let before = self.findings.len();
                    let filled = self.templated(text, Scope::Name, &setting, &item.place);
                    let place = filled.to_text(|_| String::new()).filter(|_| self.findings.len() == before);
                    media.extend(place.map(|text| Medium {
                        location: location(&text, &item.place),
                        checksum: Checksum::None,
                    }));
                }
                Node::Table(table) => {
                    let mut inner = Reader::new(table, setting, item.place.clone());
                    let also = if slots.is_some() { Also::Slot(&mut slot) } else { Also::Nothing };
                    media.extend(self.medium_of(&mut inner, also));
                    inner.done(&mut self.findings);
                }
                node => {
                    let message = format!("expected a string or a table, found {}", node.kind());
                    self.findings.push(crate::config::Finding::at(&item.place, setting, message));
                }
            }
            if let Some(slots) = slots.as_mut().filter(|_| media.len() > before) {
                slots.push(slot);
            }
        }
        media
    }

    /// A medium: a file's name, or a table.
    fn medium(&mut self, reader: &mut Reader<'_>, key: &'static str, also: Also<'_>) -> Option<Medium> {
        if !matches!(reader.any(key)?.node, Node::Table(_)) {
            let place = reader.place_of(key).clone();
            let text = self.filled(reader, key)?;
            let location = location(&text, &place);
            if matches!(location, Location::Url(_)) {
                let finding = reader.finding(key, "what is downloaded needs its `checksum`");
                self.findings.push(finding.help(format!("{key} = {{ url = \"…\", {SUMS} }}")));
            }
            return Some(Medium { location, checksum: Checksum::None });
        }
        let mut inner = reader.table(key, &mut self.findings)?;
        let medium = self.medium_of(&mut inner, also);
        inner.done(&mut self.findings);
        medium
    }

    /// Mirrors of the same file, in the order in which they are asked.
    fn urls(&mut self, reader: &mut Reader<'_>) -> Vec<String> {
        let Some(Node::List(items)) = reader.any("urls").map(|spot| &spot.node) else {
            // What is no array is told by this.
            return reader.texts("urls", &mut self.findings).unwrap_or_default();
        };
        if reader.any("url").is_some() {
            let finding = reader.finding("urls", "`url` is named too");
            self.findings.push(finding.help("put it first: urls = [\"https://…\", \"https://…\"]"));
        }
        let setting = reader.name("urls");
        let mut urls = Vec::new();
        for item in items {
            match &item.node {
                Node::Text(text) => {
                    let filled = self.templated(text, Scope::Name, &setting, &item.place);
                    urls.extend(filled.to_text(|_| String::new()).filter(|url| !url.is_empty()));
                }
                node => {
                    let message = format!("expected a string, found {}", node.kind());
                    self.findings.push(crate::config::Finding::at(&item.place, setting.clone(), message));
                }
            }
        }
        urls
    }

    /// Where a medium is from, `url` or `file`, and its checksum, which a download must have.
    fn medium_of(&mut self, reader: &mut Reader<'_>, also: Also<'_>) -> Option<Medium> {
        let mut urls = self.urls(reader);
        let url = if urls.is_empty() { self.filled(reader, "url") } else { Some(urls.remove(0)) };
        let file_place = reader.place_of("file").clone();
        let file = self.filled(reader, "file");
        let sum_place = reader.place_of("checksum").clone();
        let given = self.filled(reader, "checksum");
        match also {
            Also::Nothing => {}
            Also::Copy(copy) => *copy = reader.flag("copy", &mut self.findings).unwrap_or(false),
            Also::Slot(slot) => {
                *slot = reader.text("slot", &mut self.findings);
                if let Some(slot) = slot.as_ref().filter(|slot| !is_cd_slot(slot)) {
                    let finding = reader.finding("slot", format!("`{slot}` is no slot for a CD-ROM drive"));
                    self.findings.push(finding.help("ide0-3, sata0-5 or scsi0-30"));
                }
            }
        }
        let table = reader.path().to_owned();
        if url.is_some() == file.is_some() {
            let finding = crate::config::Finding::at(
                reader.place(),
                table.clone(),
                format!("`{table}` has one of `url` and `file`"),
            );
            let key = table.rsplit('.').next().unwrap_or_default();
            self.findings
                .push(finding.help(format!("{key} = {{ url = \"https://…\", checksum = \"sha256:…\" }}")));
        }
        let checksum = match &given {
            None => {
                if url.is_some() {
                    let message = "what is downloaded needs its `checksum`";
                    let finding = crate::config::Finding::at(reader.place(), table, message);
                    self.findings.push(finding.help(SUMS));
                }
                Checksum::None
            }
            Some(text) => match Checksum::parse(text) {
                Some(Checksum::File(place)) if !is_url(&place) => {
                    Checksum::File(beside(&sum_place, &place).display().to_string())
                }
                Some(checksum) => checksum,
                None => {
                    let finding = reader.finding("checksum", format!("`{text}` is no checksum"));
                    self.findings.push(finding.help(SUMS));
                    Checksum::None
                }
            },
        };
        for url in url.iter().chain(&urls).filter(|url| !is_url(url)) {
            let key = if reader.any("urls").is_some() { "urls" } else { "url" };
            let finding = reader.finding(key, format!("`{url}` is no address of the web"));
            self.findings.push(finding.help("https://… or http://…; a file of this machine is `file`"));
        }
        let location = match (url, file) {
            (Some(url), None) => {
                if !urls.is_empty() {
                    self.mirrors.insert(url.clone(), urls);
                }
                Location::Url(url)
            }
            (None, Some(file)) => location(&file, &file_place),
            _ => return None,
        };
        Some(Medium { location, checksum })
    }
}

fn is_url(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

/// What a name means: an address of the web, a volume of the target (`local:iso/debian.iso`), or a file beside the
/// profile.
fn location(text: &str, place: &Place) -> Location {
    if is_url(text) {
        return Location::Url(text.to_owned());
    }
    let storage = text.split_once(':').filter(|(storage, volume)| {
        let named = storage.starts_with(|c: char| c.is_ascii_alphabetic())
            && storage.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        named && !volume.is_empty() && !volume.starts_with('/')
    });
    if storage.is_some() {
        return Location::Volume(text.to_owned());
    }
    Location::File(beside(place, text))
}
