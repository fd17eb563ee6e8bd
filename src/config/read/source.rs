//! `[source]`.

use forge_machine::CloneSelector;

use super::{Load, beside};
use crate::config::place::Node;
use crate::config::profile::{Medium, Source};
use crate::config::reader::Reader;

impl Load<'_> {
    pub(super) fn source(&mut self, root: &mut Reader<'_>) -> Source {
        let mut source = Source::default();
        let help = "write `clone = \"boot-vm\"` (Proxmox) or `image = \"disk.qcow2\"` (QEMU) in it";
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
        let place = reader.place_of("image").clone();
        match reader.any("image").map(|spot| &spot.node) {
            Some(Node::Table(_)) => source.download = self.medium(&mut reader, "image"),
            _ => source.image = self.filled(&mut reader, "image").map(|path| beside(&place, &path)),
        }
        source.iso = match reader.any("iso").map(|spot| &spot.node) {
            Some(Node::Table(_)) => self.medium(&mut reader, "iso"),
            Some(_) => {
                let file = self.filled(&mut reader, "iso");
                Some(Medium { url: None, file, checksum: None })
            }
            None => None,
        };
        reader.done(&mut self.findings);
        let none = source.clone.is_none()
            && source.image.is_none()
            && source.iso.is_none()
            && source.download.is_none();
        if none && self.findings.len() == before {
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

    /// A medium or image with where it is from: `url` or `file`, and the checksum of what is downloaded.
    fn medium(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Option<Medium> {
        let mut inner = reader.table(key, &mut self.findings)?;
        let url = self.filled(&mut inner, "url");
        let file = self.filled(&mut inner, "file");
        let checksum = self.filled(&mut inner, "checksum");
        if url.is_some() == file.is_some() {
            let finding = reader.finding(key, format!("`source.{key}` has one of `url` and `file`"));
            self.findings
                .push(finding.help(format!("{key} = {{ url = \"https://…\", checksum = \"sha256:…\" }}")));
        }
        let help = "checksum = \"sha256:…\", or \"file:https://…/SHA256SUMS\": the publisher's own sums";
        match &checksum {
            None if url.is_some() => {
                let finding = reader.finding(key, "what is downloaded needs its `checksum`");
                self.findings.push(finding.help(help));
            }
            Some(sum) if !is_checksum(sum) => {
                self.findings.push(inner.finding("checksum", format!("`{sum}` is no checksum")).help(help));
            }
            _ => {}
        }
        inner.done(&mut self.findings);
        Some(Medium { url, file, checksum })
    }
}

/// `sha256:` or `sha512:` with its digits, or `file:` with a URL.
fn is_checksum(text: &str) -> bool {
    let hex =
        |digits: &str, length: usize| digits.len() == length && digits.bytes().all(|b| b.is_ascii_hexdigit());
    match text.split_once(':') {
        Some(("sha256", digits)) => hex(digits, 64),
        Some(("sha512", digits)) => hex(digits, 128),
        Some(("file", url)) => {
            url.starts_with("https://") || url.starts_with("http://") || url.starts_with('/')
        }
        _ => false,
    }
}
